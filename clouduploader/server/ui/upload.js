// The page on which a user hands in an image.
import {ask, button, byId, change, duration, element, session, setText, size, start} from "./base.js";
import {FormField, checkAll, valuesOf} from "./form.js";
import {forget, removeImage, sendFile} from "./tus.js";

let platforms = [], accounts = [], fields = [], file = null, sending = null;

function choose(chosen) {
  file = chosen;
  setText(byId("chosen"), file ? file.name + ", " + size(file.size) : "");
  setText(byId("problem"), "");
}

function platform() {
  return platforms.find((one) => one.target === byId("target").value);
}

// The form of the cloud that is chosen; the user's account holds the rest.
function showForm() {
  const {target, description, accounts: kept, fields: all, schema} = platform();
  setText(byId("target-help"), description);
  byId("no-account").hidden = kept === null || accounts.some((one) => one.target === target && one.user === session.user);
  const asked = all.filter((field) => !field.account && field.name !== "filename");
  fields = asked.map((field) => new FormField(field, schema, "data"));
  byId("needed").replaceChildren(...fields.filter((one) => one.field.required).map((one) => one.node));
  byId("optional").replaceChildren(...fields.filter((one) => !one.field.required).map((one) => one.node));
}

function tell(began, from) {
  return (bytes, why) => {
    if (why) return setText(byId("sent-text"), "Waiting: " + why + ". It goes on by itself.");
    const percent = Math.floor(bytes / file.size * 100), seconds = (Date.now() - began) / 1000;
    if (from.bytes === null) from.bytes = bytes;
    byId("sent").value = percent;
    const rate = (bytes - from.bytes) / seconds;
    const left = rate > 0 && seconds > 2 ? ", " + duration((file.size - bytes) / rate) + " left" : "";
    setText(byId("sent-text"), percent + " %, " + size(bytes) + " of " + size(file.size) + left);
  };
}

function setBusy(isBusy) {
  byId("start").disabled = isBusy;
  byId("pause").hidden = !isBusy;
  for (const one of byId("upload").querySelectorAll("input, select, textarea")) one.disabled = isBusy;
}

async function upload(event) {
  event.preventDefault();
  setText(byId("problem"), "");
  if (!file) {
    setText(byId("problem"), "Choose an image first.");
    return byId("file").focus();
  }
  if (!checkAll(fields)) return;
  const target = byId("target").value, data = valuesOf(fields);
  sending = new AbortController();
  byId("sending").hidden = false;
  setBusy(true);
  try {
    const image = await sendFile(file, tell(Date.now(), {bytes: null}), sending.signal);
    const job = await change("POST", "/jobs", {target, image, filename: file.name, data});
    forget(file);
    sending = null;
    location.assign("/ui/job/" + encodeURIComponent(job.id));
  } catch (error) {
    const isPaused = error.name === "AbortError";
    setText(byId("sent-text"), isPaused ? "Paused: it goes on with Upload, also after this page was left." : "");
    if (!isPaused) setText(byId("problem"), "This was not possible: " + error.message);
    sending = null;
    setBusy(false);
  }
}

async function showUnfinished() {
  const {images} = await ask("/images");
  const unfinished = images.filter((image) => image.job === null);
  byId("unfinished").hidden = !unfinished.length;
  byId("images").replaceChildren(...unfinished.map((image) => {
    const name = image.metadata.filename || image.id;
    const item = element("li", name + ", " + size(image.offset) + " of " + size(image.size) + " ");
    const remove = item.appendChild(button("Remove", async () => {
      remove.disabled = true;
      await removeImage(image.id).catch((error) => setText(byId("problem"), error.message));
      showUnfinished();
    }));
    remove.setAttribute("aria-label", "Remove " + name);
    return item;
  }));
}

function startUpload() {
  const drop = byId("drop");
  byId("file").addEventListener("change", () => choose(byId("file").files[0] || null));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    addEventListener(kind, (event) => {
      event.preventDefault(); // else the browser shows the file that was dropped beside
      drop.classList.toggle("over", kind === "dragover");
    });
  }
  addEventListener("drop", (event) => {
    if (sending || !event.dataTransfer.files.length) return;
    byId("file").files = event.dataTransfer.files;
    choose(event.dataTransfer.files[0]);
  });
  byId("target").addEventListener("change", () => {
    localStorage.setItem("target", byId("target").value);
    showForm();
  });
  byId("upload").addEventListener("submit", upload);
  byId("pause").addEventListener("click", () => sending && sending.abort());
  addEventListener("beforeunload", (event) => { if (sending) event.preventDefault(); });
}

await start();
if (session.csrf === null) {
  byId("upload").hidden = true;
  setText(byId("status"), "To upload an image here, sign in.");
} else {
  platforms = (await ask("/platforms")).platforms.filter((one) => one.description !== null);
  accounts = (await ask("/accounts")).accounts;
  byId("target").append(...platforms.map((one) => new Option(one.target, one.target)));
  // What was chosen last, or else a cloud that the user has an account for.
  const own = accounts.filter((one) => one.user === session.user).map((one) => one.target);
  const likely = [localStorage.getItem("target"), ...own].find((target) => platforms.some((one) => one.target === target));
  if (likely) byId("target").value = likely;
  showForm();
  startUpload();
  await showUnfinished();
  setText(byId("status"), "");
}
