// A real OpenID provider on loopback, for tests: `PORT` and the keys it signs with (`KEYS`, a JWK Set) come as variables.
// Whoever signs in as NAME:GROUP,GROUP has the verified mail address NAME@example.com and these groups.
import Provider from 'oidc-provider';

const port = Number(process.env.PORT);
const issuer = `http://127.0.0.1:${port}`;
const redirects = (process.env.REDIRECTS ?? '').split(' ').filter(Boolean);
const client = {
  grant_types: ['authorization_code'],
  response_types: ['code'],
  application_type: 'native',
  redirect_uris: ['http://127.0.0.1/callback'],
};

const confidential = { ...client, client_secret: 's3cret/with?signs', token_endpoint_auth_method: 'client_secret_basic' };

const provider = new Provider(issuer, {
  clients: [
    { ...client, client_id: 'cellwall', token_endpoint_auth_method: 'none' },
    { ...confidential, client_id: 'cellwall-secret' },
    ...(redirects.length ? [{ ...confidential, client_id: 'cellwall-web', application_type: 'web', redirect_uris: redirects }] : []),
  ],
  jwks: JSON.parse(process.env.KEYS),
  cookies: { keys: ['only for tests'] },
  claims: { openid: ['sub'], email: ['email', 'email_verified'], groups: ['groups'] },
  scopes: ['openid', 'email', 'groups'],
  // The claims stand in the ID token too, as with most providers that companies run.
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  findAccount: (_context, id) => {
    const [name, groups = ''] = id.split(':');
    const claims = {
      sub: id,
      email: `${name}@example.com`,
      email_verified: !name.startsWith('unverified'),
      groups: groups.split(',').filter(Boolean),
    };
    return { accountId: id, claims: () => claims };
  },
});

provider.listen(port, '127.0.0.1', () => console.log('listening'));
