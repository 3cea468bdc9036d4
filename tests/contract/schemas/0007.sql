BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0007');
CREATE TABLE api_tokens (
	name TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	roles JSON NOT NULL, 
	created FLOAT NOT NULL, 
	ends FLOAT NOT NULL, 
	author TEXT NOT NULL, 
	used FLOAT NOT NULL, 
	PRIMARY KEY (name), 
	UNIQUE (digest)
);
INSERT INTO "api_tokens" VALUES('ci','eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','["author app=shop"]',5.0,9000000000.0,'ann',6.0);
CREATE TABLE audit (
	number INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	author TEXT NOT NULL, 
	action TEXT NOT NULL, 
	subject TEXT NOT NULL, 
	details JSON NOT NULL, 
	previous TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	PRIMARY KEY (number)
);
INSERT INTO "audit" VALUES(1,4.0,'ann','declare','plc-7','{"labels": {"role": "plc"}}','0000000000000000000000000000000000000000000000000000000000000000','b969e95e6940984b301239c42347da6dd6ab4fecf73933f05f00af563d03a707');
INSERT INTO "audit" VALUES(2,5.0,'token t1','enrol','web-1','{"serial": "1f"}','b969e95e6940984b301239c42347da6dd6ab4fecf73933f05f00af563d03a707','3f66c6d1029c845f3f80b09c5a4efab8bf0f7199a02c50d10463d3f4915ab7ce');
INSERT INTO "audit" VALUES(3,6.0,'ann','label','web-1','{"labels": {"app": "shop"}, "x": 0.1}','3f66c6d1029c845f3f80b09c5a4efab8bf0f7199a02c50d10463d3f4915ab7ce','b1170974d881226d73f5b807b670c8be4ed0c6d9e96b1359bafc49ff8a6569e2');
INSERT INTO "audit" VALUES(4,7.0,'ann','apply','revision 1','{"note": "start", "reverts_to": null}','b1170974d881226d73f5b807b670c8be4ed0c6d9e96b1359bafc49ff8a6569e2','71864bcbe671718b651dbc32215709c5ebd3860109abec84bdc53a84ad7e9e8e');
CREATE TABLE audit_heads (
	number INTEGER NOT NULL, 
	hash TEXT NOT NULL, 
	at FLOAT NOT NULL, 
	signature TEXT NOT NULL, 
	PRIMARY KEY (number)
);
INSERT INTO "audit_heads" VALUES(4,'71864bcbe671718b651dbc32215709c5ebd3860109abec84bdc53a84ad7e9e8e',7.5,'aa');
CREATE TABLE certificates (
	serial TEXT NOT NULL, 
	workload TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	issued FLOAT NOT NULL, 
	ends FLOAT NOT NULL, 
	revoked BOOLEAN NOT NULL, 
	PRIMARY KEY (serial)
);
INSERT INTO "certificates" VALUES('1f','web-1','k1',5.0,9000000000.0,0);
INSERT INTO "certificates" VALUES('1e','web-1','k0',4.0,9000000000.0,1);
CREATE TABLE changes (
	place INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	controller TEXT NOT NULL, 
	topic TEXT NOT NULL, 
	subject TEXT NOT NULL, 
	PRIMARY KEY (place)
);
INSERT INTO "changes" VALUES(1,8.0,'one','table:orders','');
CREATE TABLE consents (
	revision INTEGER NOT NULL, 
	person TEXT NOT NULL, 
	agrees BOOLEAN NOT NULL, 
	note TEXT NOT NULL, 
	at FLOAT NOT NULL, 
	PRIMARY KEY (revision, person)
);
INSERT INTO "consents" VALUES(2,'eve',1,'looks right',4.2);
CREATE TABLE controllers (
	name TEXT NOT NULL, 
	urls JSON NOT NULL, 
	listeners JSON NOT NULL, 
	version TEXT NOT NULL, 
	began FLOAT NOT NULL, 
	seen FLOAT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "controllers" VALUES('one','["https://10.0.0.9:7443"]','[["10.0.0.9", 7443]]','0.1.0',3.0,8.0);
CREATE TABLE courses (
	revision INTEGER NOT NULL, 
	base INTEGER NOT NULL, 
	waves JSON NOT NULL, 
	settle_s FLOAT NOT NULL, 
	unexpected_denials INTEGER NOT NULL, 
	on_failure TEXT NOT NULL, 
	wave INTEGER NOT NULL, 
	released FLOAT NOT NULL, 
	opened FLOAT NOT NULL, 
	well FLOAT NOT NULL, behind JSON DEFAULT '[]' NOT NULL, 
	PRIMARY KEY (revision)
);
INSERT INTO "courses" VALUES(1,0,'["all"]',0.0,0,'revert',0,3.0,3.0,3.0,'[]');
INSERT INTO "courses" VALUES(2,1,'["all"]',0.0,0,'revert',0,4.0,4.0,4.0,'[]');
CREATE TABLE denials (
	id INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	reporter TEXT NOT NULL, 
	source TEXT NOT NULL, 
	destination TEXT NOT NULL, 
	protocol INTEGER NOT NULL, 
	port INTEGER NOT NULL, 
	side TEXT NOT NULL, 
	outcome TEXT NOT NULL, 
	rule TEXT NOT NULL, 
	revision INTEGER NOT NULL, 
	process TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "denials" VALUES(1,7.5,'web-1','10.0.0.1','2001:db8::2',6,22,'ingress','denied','',2,'sshd');
CREATE TABLE facts (
	workload TEXT NOT NULL, 
	facts BLOB NOT NULL, 
	at FLOAT NOT NULL, 
	PRIMARY KEY (workload)
);
INSERT INTO "facts" VALUES('web-1',X'83A474797065A56661637473A961646472657373657391C4040A000001A8686F73746E616D65A57765622D31',9.0);
CREATE TABLE failed_sign_ins (
	"key" TEXT NOT NULL, 
	count INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "failed_sign_ins" VALUES('bob',2,8.0);
CREATE TABLE history (
	place INTEGER NOT NULL, 
	workload TEXT NOT NULL, 
	at FLOAT NOT NULL, 
	there BOOLEAN NOT NULL, 
	agent BOOLEAN NOT NULL, 
	epoch FLOAT NOT NULL, 
	addresses JSON NOT NULL, 
	labels JSON NOT NULL, 
	PRIMARY KEY (place)
);
INSERT INTO "history" VALUES(1,'plc-7',4.0,1,0,4.0,'["10.9.0.11"]','{"role": "plc"}');
INSERT INTO "history" VALUES(2,'web-1',8.0,1,1,5.0,'["10.0.0.1", "2001:db8::2"]','{"app": "shop"}');
CREATE TABLE labels (
	workload TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	source TEXT NOT NULL, 
	value TEXT NOT NULL, 
	author TEXT NOT NULL, 
	at FLOAT NOT NULL, 
	PRIMARY KEY (workload, "key", source)
);
INSERT INTO "labels" VALUES('web-1','app','declared','shop','ann',7.0);
INSERT INTO "labels" VALUES('web-1','app','accepted','till','bob',8.0);
INSERT INTO "labels" VALUES('plc-7','role','declared','plc','ann',4.0);
CREATE TABLE oidc_sign_ins (
	state TEXT NOT NULL, 
	nonce TEXT NOT NULL, 
	verifier TEXT NOT NULL, 
	asker TEXT NOT NULL, 
	redirect TEXT NOT NULL, 
	ends FLOAT NOT NULL, 
	PRIMARY KEY (state)
);
INSERT INTO "oidc_sign_ins" VALUES('s1','n1','v1','a1','https://localhost/',9000000000.0);
CREATE TABLE orders (
	id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	source JSON NOT NULL, 
	destination JSON NOT NULL, 
	spans JSON NOT NULL, 
	exempt JSON NOT NULL, 
	begins FLOAT NOT NULL, 
	expires FLOAT, 
	author TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	given FLOAT NOT NULL, 
	over FLOAT, 
	ended_by TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "orders" VALUES('contain-1','contain','{"workloads": [], "selectors": ["app=shop"], "networks": []}','{"workloads": ["plc-7"], "selectors": [], "networks": []}','[[393661, 393661]]','[["10.0.0.1", "10.9.0.11"]]',8.0,NULL,'ann','worm',8.0,NULL,'');
CREATE TABLE people (
	name TEXT NOT NULL, 
	password TEXT NOT NULL, 
	roles JSON NOT NULL, 
	disabled BOOLEAN NOT NULL, 
	created FLOAT NOT NULL, 
	author TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "people" VALUES('eve','','["reviewer"]',0,4.0,'ann');
CREATE TABLE points (
	workload TEXT NOT NULL, 
	standing BLOB NOT NULL, 
	PRIMARY KEY (workload)
);
INSERT INTO "points" VALUES('web-1',X'88A669737375656483AA67656E65726174696F6E04A87265766973696F6E02A6646967657374A26161A7686F6C64696E6783AA67656E65726174696F6E03A87265766973696F6E01A6646967657374A26262A57374617465A87265766572746564A6726561736F6EB16E6F2063616E61727920616E7377657273A76D6973666974739192A172AA6E6F206367726F757073A26174CB401C000000000000A7737075726E656483AA67656E65726174696F6E04A87265766973696F6E02A6646967657374A26161A47365656ECB4020000000000000');
CREATE TABLE presence (
	workload TEXT NOT NULL, 
	controller TEXT NOT NULL, 
	PRIMARY KEY (workload)
);
INSERT INTO "presence" VALUES('web-1','one');
CREATE TABLE progress (
	revision INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	at FLOAT NOT NULL, 
	PRIMARY KEY (revision)
);
INSERT INTO "progress" VALUES(1,'failed','`web-1` took it back',3.5);
INSERT INTO "progress" VALUES(2,'good','',4.5);
CREATE TABLE questions (
	id TEXT NOT NULL, 
	at FLOAT NOT NULL, 
	asker TEXT NOT NULL, 
	asked TEXT NOT NULL, 
	workload TEXT NOT NULL, 
	question BLOB NOT NULL, 
	answer BLOB, 
	PRIMARY KEY (id)
);
INSERT INTO "questions" VALUES('q1',8.0,'one','two','web-1',X'80',NULL);
CREATE TABLE receipts (
	id INTEGER NOT NULL, 
	workload TEXT NOT NULL, 
	at FLOAT NOT NULL, 
	receipt BLOB NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "receipts" VALUES(1,'web-1',7.0,X'83A474797065A772656365697074AA67656E65726174696F6E03A57374617465A8656E666F72636564');
CREATE TABLE revisions (
	number INTEGER NOT NULL, 
	author TEXT NOT NULL, 
	note TEXT NOT NULL, 
	created FLOAT NOT NULL, 
	documents JSON NOT NULL, 
	"plan" JSON NOT NULL, 
	confirm_s FLOAT NOT NULL, 
	reverts_to INTEGER, 
	PRIMARY KEY (number)
);
INSERT INTO "revisions" VALUES(1,'ann','start',3.0,'{"a.yaml": "rules: []\n"}','{"summary": {"none": 1}}',30.0,NULL);
INSERT INTO "revisions" VALUES(2,'bob','back',4.0,'{}','{}',0.0,1);
CREATE TABLE sessions (
	digest TEXT NOT NULL, 
	person TEXT NOT NULL, 
	way TEXT NOT NULL, 
	groups JSON NOT NULL, 
	created FLOAT NOT NULL, 
	used FLOAT NOT NULL, 
	ends FLOAT NOT NULL, 
	origin TEXT NOT NULL, 
	PRIMARY KEY (digest)
);
INSERT INTO "sessions" VALUES('ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','eve','password','[]',5.0,6.0,9000000000.0,'127.0.0.1');
CREATE TABLE settings (
	name TEXT NOT NULL, 
	value JSON NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "settings" VALUES('tidied','{"at": 8.0}');
CREATE TABLE test_outcomes (
	test TEXT NOT NULL, 
	passed BOOLEAN NOT NULL, 
	since FLOAT NOT NULL, 
	revision INTEGER NOT NULL, 
	counterexample TEXT NOT NULL, 
	PRIMARY KEY (test)
);
INSERT INTO "test_outcomes" VALUES('cde',0,5.0,2,'web-1 → plc-7 tcp/22 passes');
CREATE TABLE token_uses (
	token TEXT NOT NULL, 
	"key" TEXT NOT NULL, 
	workload TEXT NOT NULL, 
	at FLOAT NOT NULL, 
	PRIMARY KEY (token, "key", workload)
);
INSERT INTO "token_uses" VALUES('t1','k1','web-1',5.0);
CREATE TABLE tokens (
	id TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	labels JSON NOT NULL, 
	workload TEXT, 
	uses INTEGER NOT NULL, 
	used INTEGER NOT NULL, 
	expires FLOAT NOT NULL, 
	created FLOAT NOT NULL, 
	author TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (digest)
);
INSERT INTO "tokens" VALUES('t1','dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd','{"app": "shop"}',NULL,2,1,9000000000.0,1.0,'ann');
CREATE TABLE workloads (
	name TEXT NOT NULL, 
	agent BOOLEAN NOT NULL, 
	addresses JSON NOT NULL, 
	epoch FLOAT NOT NULL, 
	seen FLOAT NOT NULL, 
	version TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "workloads" VALUES('web-1',1,'["10.0.0.1", "2001:db8::2"]',5.0,6.0,'0.1.0');
INSERT INTO "workloads" VALUES('plc-7',0,'["10.9.0.11"]',4.0,0.0,'');
CREATE INDEX ix_certificates_workload ON certificates (workload);
CREATE INDEX receipts_by_workload ON receipts (workload, at);
CREATE INDEX ix_denials_at ON denials (at);
CREATE TRIGGER audit_no_update before update on audit begin select raise(abort, 'audit is for ever'); end;
CREATE TRIGGER audit_no_delete before delete on audit begin select raise(abort, 'audit is for ever'); end;
CREATE TRIGGER revisions_no_update before update on revisions begin select raise(abort, 'revisions is for ever'); end;
CREATE TRIGGER revisions_no_delete before delete on revisions begin select raise(abort, 'revisions is for ever'); end;
CREATE INDEX history_by_workload ON history (workload, at);
CREATE TRIGGER history_no_update before update on history begin select raise(abort, 'history is for ever'); end;
CREATE TRIGGER history_no_delete before delete on history begin select raise(abort, 'history is for ever'); end;
CREATE INDEX ix_sessions_person ON sessions (person);
CREATE INDEX orders_by_end ON orders (over);
CREATE INDEX ix_presence_controller ON presence (controller);
CREATE INDEX ix_changes_at ON changes (at);
COMMIT;
