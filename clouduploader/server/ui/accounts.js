// The page on which a user manages accounts in the clouds, by what the platforms say of them.
import {ask, button, byId, change, confirmed, describe, element, link, session, setText, start} from "./base.js";
import {FormField, checkAll, valuesOf} from "./form.js";

const user = new URLSearchParams(location.search).get("user") || "";
const whose = user ? "?user=" + encodeURIComponent(user) : "";
let platforms = [], accounts = [];

function pathOf(target) {
  return "/accounts/" + encodeURIComponent(target);
}

// Do something on behalf of a button, and say in its section what came of it.
async function run(pressed, said, work) {
  pressed.disabled = true;
  setText(said, "Working");
  try {
    setText(said, await work() || "");
  } catch (error) {
    setText(said, "That was not possible: " + error.message);
  }
  pressed.disabled = false;
}

function status() {
  const said = element("p", null, "said");
  said.setAttribute("role", "status");
  return said;
}

function download(name, text, type) {
  const made = link(URL.createObjectURL(new Blob([text], {type})), "Download");
  made.download = name;
  made.setAttribute("aria-label", "Download " + name);
  return made;
}

function showText(title, name, text, type, console) {
  const details = element("details"), pre = element("pre", text, "wrapped"), actions = element("p", null, "buttons");
  pre.tabIndex = 0;
  actions.append(download(name, text, type));
  if (console) {
    const there = actions.appendChild(link(console, "Open the cloud's console"));
    there.target = "_blank";
    there.rel = "noreferrer";
  }
  details.append(element("summary", title), actions, pre);
  return details;
}

// What the user has to do in the cloud; the cloud may have to be asked.
async function showGuide(platform, place, extras) {
  const query = new URLSearchParams(extras.map((extra) => ["extra", extra]));
  if (user) query.set("user", user);
  const guide = await ask(pathOf(platform.target) + "/guide?" + query);
  const facts = element("dl");
  const isShown = (name) => platform.fields.some((field) => field.given && field.name === name);
  const news = Object.entries(guide.facts).filter(([name]) => !isShown(name));
  describe(facts, news.map(([name, value]) => [name.replaceAll("_", " "), value]));
  const isJson = (text) => text.trimStart().startsWith("{");
  place.replaceChildren(
    facts,
    ...Object.entries(guide.scripts).map(([name, text]) =>
      showText(name, platform.target + "-" + name + (isJson(text) ? ".json" : ".sh"), text, "text/plain", guide.consoles[name])),
    ...Object.entries(guide.policies).map(([name, policy]) =>
      showText("policy: " + name, platform.target + "-" + name + ".json", JSON.stringify(policy, null, 2), "application/json")),
  );
}

function guideSection(platform) {
  const section = element("div"), place = element("div"), said = status(), chosen = element("fieldset");
  chosen.append(element("legend", "Allow the service besides"));
  const boxes = Object.entries(platform.extras || {}).map(([name, words]) => {
    const label = chosen.appendChild(element("label")), box = element("input");
    box.type = "checkbox";
    box.value = name;
    label.append(box, " " + words.replaceAll("`", ""));
    return box;
  });
  const show = button("Show what to do there", () => run(show, said, () =>
    showGuide(platform, place, boxes.filter((box) => box.checked).map((box) => box.value))));
  section.append(element("h3", "1. In the cloud"), ...(boxes.length ? [chosen] : []), show, said, place);
  return section;
}

function valuesSection(platform, account) {
  const form = element("form", null, "fields"), said = status();
  form.noValidate = true;
  const asked = platform.fields.filter((field) => field.account && !field.given);
  // What holds without a value is told for uploads by hand: the service has no login of the user's.
  const fields = asked.map((field) => new FormField({...field, default: ""}, platform.schema, platform.target));
  for (const one of fields) {
    const value = account.values[one.field.name];
    if (value !== undefined) one.control.value = value;
    else if (account.secrets.includes(one.field.name)) one.control.placeholder = "kept, and not shown";
  }
  const save = element("button", "Save");
  save.className = "main";
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!checkAll(fields)) return;
    run(save, said, async () => {
      const values = valuesOf(fields);
      for (const name of Object.keys(values)) if (values[name] === account.values[name]) delete values[name];
      await change("PUT", pathOf(platform.target) + whose, {values});
      await refresh();
      return "Saved.";
    });
  });
  form.append(...fields.map((one) => one.node), save, said);
  const section = element("div");
  section.append(element("h3", "2. What the service is to know"), form);
  return section;
}

function verifySection(platform) {
  const section = element("div"), found = element("ul", null, "findings"), said = status();
  const verify = button("Verify", () => run(verify, said, async () => {
    found.replaceChildren();
    const {usable, open, findings} = await change("POST", pathOf(platform.target) + "/verify" + whose);
    found.replaceChildren(...findings.map((one) => {
      const item = element("li");
      item.append(element("strong", one.level, "level " + one.level), " " + one.subject + ": " + one.message + (one.hint ? ". " + one.hint : ""));
      return item;
    }));
    return !usable ? "The service does not get in." : open ? "It can be used, but every user of this service gets in." : "It can be used.";
  }));
  section.append(element("h3", "3. Does it work?"), verify, said, found);
  return section;
}

function removeSection(platform) {
  const said = status();
  const remove = button("Forget this account", async () => {
    const text = "Uploads into it are not possible any more. Nothing in the cloud is changed.";
    if (await confirmed("Forget the account for " + platform.target + "?", text, "Forget it")) {
      run(remove, said, async () => {
        await change("DELETE", pathOf(platform.target) + whose);
        await refresh();
        showAll();
      });
    }
  });
  const section = element("p");
  section.append(remove, said);
  return section;
}

function showAccount(platform) {
  const section = element("section", null, "account"), title = element("h2", platform.target);
  title.id = "title-" + platform.target;
  section.setAttribute("aria-labelledby", title.id);
  const account = accounts.find((one) => one.target === platform.target);
  section.append(title);
  if (!account) {
    const said = status();
    const make = button("Make an account for " + platform.target, () => run(make, said, async () => {
      await change("POST", "/accounts", {target: platform.target, user});
      await refresh();
      showAll(platform.target);
    }));
    section.append(element("p", platform.description), make, said);
    return section;
  }
  const given = platform.fields.filter((field) => field.given && account.values[field.name]);
  const facts = element("dl");
  describe(facts, given.map((field) => [field.name.replaceAll("_", " "), account.values[field.name]]));
  section.append(facts, guideSection(platform), valuesSection(platform, account), verifySection(platform), removeSection(platform));
  return section;
}

async function refresh() {
  const all = (await ask("/accounts")).accounts;
  accounts = all.filter((one) => one.user === (user || session.user));
  byId("users").replaceChildren(...new Set(all.map((one) => one.user)).values().map((name) => new Option(name)));
}

function showAll(target) {
  byId("accounts").replaceChildren(...platforms.map(showAccount));
  const heading = target && byId("title-" + target);
  if (!heading) return;
  heading.tabIndex = -1;
  heading.focus(); // the button that was pressed is gone
}

await start();
byId("whose").hidden = session.role !== "admin";
byId("whose").elements.user.value = user;
byId("whose").addEventListener("submit", (event) => {
  event.preventDefault();
  location.assign("/ui/accounts?user=" + encodeURIComponent(byId("whose").elements.user.value.trim()));
});
try {
  platforms = (await ask("/platforms")).platforms.filter((one) => one.description !== null && one.accounts !== null);
  await refresh();
  showAll();
  setText(byId("status"), user ? "of " + user : "");
} catch (error) {
  setText(byId("status"), "");
  setText(byId("problem"), error.message);
}
