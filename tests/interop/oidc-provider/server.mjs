// oidc-provider with a protected API beside it, and controls for tests.
//
//   node server.mjs --modules DIR --client-id ID --client-secret SECRET
//                   [--port N] [--ttl SECONDS] [--says SECONDS] [--store FILE] [--native-id ID]
//
// Needs Node 18 or later, as oidc-provider 8 does; oidc-provider 9 needs a newer one. Prints its
// origin on the first line. `--says` is the expires_in of token responses, where it is to differ
// from the lifetime. With `--store`, tokens are in that file before any answer that depends on
// them: a process that is killed goes on from there at its next start. With `--native-id`, there is
// a client without a secret, too, for which a person logs in on the provider's own pages: any name
// and password will do.

import { generateKeyPairSync } from 'node:crypto';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const { values: args } = parseArgs({
  options: {
    modules: { type: 'string' },
    'client-id': { type: 'string' },
    'client-secret': { type: 'string' },
    port: { type: 'string', default: '0' },
    ttl: { type: 'string', default: '300' },
    says: { type: 'string' },
    store: { type: 'string' },
    'native-id': { type: 'string' },
  },
});
const entry = join(resolve(args.modules), 'oidc-provider', 'lib', 'index.js');
const { default: Provider } = await import(pathToFileURL(entry));

const DAY = 24 * 60 * 60;
const SCOPE = 'offline_access';

const counters = { token_requests: 0, refreshes: 0, reuses: 0, api_ok: 0, api_unauthorized: 0 };

// Everything that the provider keeps, by model and id.
const records = new Map(
  args.store && existsSync(args.store) ? JSON.parse(readFileSync(args.store, 'utf8')) : [],
);

function save() {
  if (!args.store) return;
  writeFileSync(`${args.store}.new`, JSON.stringify([...records]));
  renameSync(`${args.store}.new`, args.store);
}

function forget(condemned) {
  for (const [key, payload] of records) {
    if (condemned(key.split(':', 1)[0], payload)) records.delete(key);
  }
  save();
}

class Adapter {
  constructor(model) {
    this.model = model;
  }

  async upsert(id, payload) {
    records.set(`${this.model}:${id}`, payload);
    save();
  }

  async find(id) {
    return records.get(`${this.model}:${id}`);
  }

  async findByUid(uid) {
    return this.first((payload) => payload.uid === uid);
  }

  async findByUserCode(userCode) {
    return this.first((payload) => payload.userCode === userCode);
  }

  first(isIt) {
    const [, found] = [...records].find(
      ([key, payload]) => key.startsWith(`${this.model}:`) && isIt(payload),
    ) ?? [];
    return found;
  }

  async consume(id) {
    records.get(`${this.model}:${id}`).consumed = Math.floor(Date.now() / 1000);
    save();
  }

  async destroy(id) {
    records.delete(`${this.model}:${id}`);
    save();
  }

  async revokeByGrantId(grantId) {
    forget((model, payload) => model === this.model && payload.grantId === grantId);
  }
}

// Longer than any test leaves a connection idle: one that is closed just as it is used again is a
// failure of the network, which is not the matter here.
const server = createServer({ keepAliveTimeout: 120_000 });
await new Promise((listening) => {
  server.listen(Number(args.port), '127.0.0.1', listening);
});
const origin = `http://127.0.0.1:${server.address().port}`;

// For ID tokens; the provider wants one in any case.
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });

const native = {
  client_id: args['native-id'],
  application_type: 'native',
  token_endpoint_auth_method: 'none',
  grant_types: [
    'authorization_code',
    'refresh_token',
    'urn:ietf:params:oauth:grant-type:device_code',
  ],
  redirect_uris: ['http://127.0.0.1/callback'],
  response_types: ['code'],
};
const hasPages = native.client_id !== undefined;
// Standard output is for the origin. That these pages are not for production is known.
if (hasPages) console.info = console.warn = () => {};

const provider = new Provider(origin, {
  adapter: Adapter,
  clients: [
    {
      client_id: args['client-id'],
      client_secret: args['client-secret'],
      grant_types: ['refresh_token'],
      redirect_uris: [],
      response_types: [],
    },
    ...(hasPages ? [native] : []),
  ],
  // Tokens end when they are over; the default gives them 15 seconds more.
  clockTolerance: 0,
  cookies: { keys: ['unused'] },
  features: {
    deviceFlow: { enabled: hasPages },
    devInteractions: { enabled: hasPages },
    revocation: { enabled: true },
  },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig' }] },
  // A spent refresh token that comes back ends the grant: the provider does that by itself.
  rotateRefreshToken: true,
  ttl: { AccessToken: Number(args.ttl), Grant: DAY, RefreshToken: DAY },
});

provider.on('server_error', (ctx, error) => {
  console.error(error);
});
provider.on('grant.success', () => {
  counters.refreshes += 1;
});
provider.on('grant.error', (ctx, error) => {
  counters.reuses += error.error_detail === 'refresh token already used';
});
provider.use(async (ctx, next) => {
  await next();
  if (args.says && ctx.body?.expires_in) ctx.body.expires_in = Number(args.says);
});

// What a person's login in a browser would bring.
async function logIn() {
  const client = await provider.Client.find(args['client-id']);
  const grant = new provider.Grant({ accountId: 'alice', clientId: client.clientId });
  grant.addOIDCScope(SCOPE);
  const grantId = await grant.save();
  const granted = { accountId: 'alice', client, grantId, gty: 'authorization_code', scope: SCOPE };
  const access = new provider.AccessToken(granted);
  return {
    access_token: await access.save(),
    expires_in: Number(args.says ?? access.expiration),
    refresh_token: await new provider.RefreshToken(granted).save(),
    scope: SCOPE,
    token_type: 'Bearer',
  };
}

async function api(request) {
  const [, token] = /^Bearer (.+)$/.exec(request.headers.authorization ?? '') ?? [];
  const found = token && (await provider.AccessToken.find(token));
  counters[found ? 'api_ok' : 'api_unauthorized'] += 1;
  return found
    ? [200, { user: found.accountId }]
    : [401, { error: 'invalid_token' }, { 'www-authenticate': 'Bearer error="invalid_token"' }];
}

const controls = {
  '/control/login': async () => [200, await logIn()],
  '/control/expire-access-tokens': () => [204, forget((model) => model === 'AccessToken')],
  '/control/revoke': () => [204, forget(() => true)],
  '/control/state': () => {
    const grants = [...records.keys()].filter((key) => key.startsWith('Grant:'));
    return [200, { ...counters, grants: grants.length }];
  },
};

const oauth = provider.callback();
server.on('request', async (request, response) => {
  const { pathname } = new URL(request.url, origin);
  const answer = pathname.startsWith('/api/') ? api : controls[pathname];
  if (!answer) {
    counters.token_requests += pathname === '/token';
    oauth(request, response);
    return;
  }
  const [status, body, headers] = await answer(request);
  request.resume();
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(body && JSON.stringify(body));
});

console.log(origin);
