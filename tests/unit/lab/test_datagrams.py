"""The lab's DNS and syslog on the wire."""

from cellwall.lab.apps.datagrams import AAAA, A, answer, log_line, question, read_log_line

ZONE = {"web.lab.internal": ["10.0.0.1", "fd00::1"]}


def test_a_known_name_is_answered_in_the_family_asked_for() -> None:
    four = answer(question("web.lab.internal", A, 7), ZONE)
    six = answer(question("WEB.lab.internal", AAAA, 7), ZONE)
    assert four and four[:2] == b"\0\x07" and four[6:8] == b"\0\x01" and four.endswith(bytes([10, 0, 0, 1]))
    assert six and six[3] & 0xF == 0 and six.endswith(b"\xfd" + bytes(14) + b"\x01")


def test_an_unknown_name_does_not_exist_and_an_unknown_type_has_no_data() -> None:
    none = answer(question("nobody.lab.internal", A, 1), ZONE)
    text = answer(question("web.lab.internal", 16, 1), ZONE)
    assert none and none[3] & 0xF == 3
    assert text and text[3] & 0xF == 0 and text[6:8] == b"\0\0"


def test_what_is_no_query_gets_no_answer() -> None:
    query = question("web.lab.internal", A, 1)
    assert answer(b"", ZONE) is None
    assert answer(query[:-1], ZONE) is None
    assert answer(query[:2] + b"\x81" + query[3:], ZONE) is None
    assert answer(query[:12] + b"\xc0\x0c\0\0\0\0\0\0", ZONE) is None


def test_a_log_line_says_whose_it_is_and_which_number_it_has() -> None:
    assert read_log_line(log_line("web/a.service>db/syslog/4/udp", 12)) == ("web/a.service>db/syslog/4/udp", 12)
    assert read_log_line(b"scan") is None
    assert read_log_line(log_line("x", 1) + b"x") is None
