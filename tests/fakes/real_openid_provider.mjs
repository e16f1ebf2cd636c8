// oidc-provider (npm), certified by the OpenID Foundation, with accounts that are whatever one calls oneself.
// node real_openid_provider.mjs MODULE CLIENT SECRET REDIRECT_PATH; says its issuer.
const [module, client_id, client_secret, redirectPath] = process.argv.slice(2);
const {Provider} = await import(module);
const {createServer} = await import("node:http");
const {generateKeyPairSync} = await import("node:crypto");

const server = createServer((request, answer) => handler(request, answer));
let handler = (_, answer) => answer.end();
server.listen(0, "127.0.0.1", () => {
  const issuer = "http://127.0.0.1:" + server.address().port;
  const key = generateKeyPairSync("ec", {namedCurve: "P-256"}).privateKey.export({format: "jwk"});
  const provider = new Provider(issuer, {
    clients: [{client_id, client_secret, redirect_uris: [issuer + redirectPath], id_token_signed_response_alg: "ES256"}],
    jwks: {keys: [{...key, kid: "k1", use: "sig", alg: "ES256"}]},
    cookies: {keys: ["only for tests"]},
    claims: {openid: ["sub"], profile: ["preferred_username", "groups"]},
    pkce: {required: () => true},
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({sub: "id-of-" + id, preferred_username: id, groups: id === "olga" ? ["cloud-admins"] : id === "eve" ? [] : ["cloud-users"]}),
    }),
  });
  // The port of the service under test is not known before.
  provider.Client.prototype.redirectUriAllowed = (uri) => new URL(uri).hostname === "127.0.0.1" && new URL(uri).pathname === redirectPath;
  handler = provider.callback();
  console.log(issuer);
});
