// The page on which a user signs in.
import {byId, readSession, send, session, setText} from "./base.js";

const PROBLEMS = new Map(Object.entries({
  denied: "You were not signed in: the provider says that you declined.",
  provider: "You were not signed in: the provider can't be used now. The service's log says why.",
  stale: "You were not signed in: it took too long, or was begun in another browser. Try again.",
  unknown: "You were not signed in: your account at the provider is none here. Ask an administrator.",
}));

const REFUSALS = new Map([
  [401, "This token is wrong, was revoked or has expired."],
  [403, "This token is not taken here: it is one for programs, or others could read it on its way (http)."],
]);

const given = new URLSearchParams(location.search);
// Only a page of this server: what follows comes from the address.
const next = /^\/ui(\/[\w/-]*)?$/.test(given.get("next") || "") ? given.get("next") : "/ui";

async function signIn(event) {
  event.preventDefault();
  setText(byId("problem"), "");
  const answer = await send("POST", "/ui/sign-in", {token: byId("token-text").value});
  if (answer.ok) return location.replace(next);
  setText(byId("problem"), REFUSALS.get(answer.status) || "The server answers " + answer.status + ".");
  byId("token-text").select();
}

setText(byId("problem"), PROBLEMS.get(given.get("problem")) || "");
byId("token").addEventListener("submit", signIn);
await readSession();
setText(byId("status"), "");
byId("token").hidden = !session.ways.includes("token");
byId("openid").hidden = !session.ways.includes("openid");
byId("openid-link").href = "/ui/openid?next=" + encodeURIComponent(next);
setText(byId("openid-link"), "Sign in with " + session.provider);
