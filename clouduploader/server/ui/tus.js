// Send a file in pieces that can be gone on with: tus 1.0, as far as it is needed here.
import {csrf, goToSignIn, pause, problem, session} from "./base.js";

const PIECE_BYTES = 64 << 20; // a proxy may not pass on more at once
const RETRY_MS = [1000, 3000, 5000, 10000, 30000]; // the last again and again
const TUS = {"Tus-Resumable": "1.0.0"};
const ROOT = "/api/v1/images";

// What tells a file from others, also after the page was left; the image that it belongs to is kept under it.
function keyOf(file) {
  return ["image", session.user, file.name, file.size, file.lastModified].join("/");
}

function base64(text) {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}

// An answer that no repetition makes better.
class Refusal extends Error {}

async function request(method, path, headers) {
  const answer = await fetch(path, {method, headers: {...TUS, ...csrf(), ...headers}, cache: "no-store"});
  if (answer.status === 401) return goToSignIn();
  if (answer.status >= 500) throw new Error("the server answers " + answer.status);
  return answer;
}

async function refusal(answer) {
  return new Refusal(problem(answer.status, await answer.text()));
}

// fetch() does not tell how much of a body is sent.
function sendPiece(path, offset, piece, tell, signal) {
  return new Promise((resolve, reject) => {
    const sender = new XMLHttpRequest();
    sender.open("PATCH", path);
    const headers = {...TUS, ...csrf(), "Upload-Offset": offset, "Content-Type": "application/offset+octet-stream"};
    for (const [name, value] of Object.entries(headers)) sender.setRequestHeader(name, value);
    sender.upload.onprogress = (event) => tell(offset + event.loaded);
    sender.onload = () => resolve(sender);
    sender.onerror = () => reject(new Error("the connection was lost"));
    sender.onabort = () => reject(new DOMException("paused", "AbortError"));
    signal.addEventListener("abort", () => sender.abort());
    sender.send(piece);
  });
}

// Where the image of a file is, and how much of it is there.
async function begin(file) {
  const known = localStorage.getItem(keyOf(file));
  if (known) {
    const answer = await request("HEAD", ROOT + "/" + known);
    if (answer.ok) return {id: known, offset: Number(answer.headers.get("Upload-Offset"))};
    localStorage.removeItem(keyOf(file)); // it was removed meanwhile
  }
  const answer = await request("POST", ROOT, {"Upload-Length": file.size, "Upload-Metadata": "filename " + base64(file.name)});
  if (!answer.ok) throw await refusal(answer);
  const {id} = await answer.json();
  localStorage.setItem(keyOf(file), id);
  return {id, offset: 0};
}

// Send a file, and return the id of its image; goes on where an earlier page has stopped, and after lost connections.
// tell(bytes, why) is called with what is there, and why nothing is sent at the moment.
export async function sendFile(file, tell, signal) {
  for (let failures = 0; ;) {
    try {
      let {id, offset} = await begin(file);
      tell(offset);
      while (offset < file.size) {
        signal.throwIfAborted();
        const answer = await sendPiece(ROOT + "/" + id, offset, file.slice(offset, offset + PIECE_BYTES), tell, signal);
        if (answer.status === 401) await goToSignIn();
        if (answer.status !== 204 && answer.status < 500 && answer.status !== 409) {
          throw new Refusal(problem(answer.status, answer.responseText));
        }
        if (answer.status !== 204) throw new Error("the server answers " + answer.status);
        offset = Number(answer.getResponseHeader("Upload-Offset"));
        failures = 0;
      }
      return id;
    } catch (error) {
      if (error instanceof Refusal || error.name === "AbortError") throw error;
      tell(null, error.message);
      await pause(RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]);
      signal.throwIfAborted();
    }
  }
}

// A job was made of the image: the next upload of the file begins anew.
export function forget(file) {
  localStorage.removeItem(keyOf(file));
}

export async function removeImage(id) {
  const answer = await request("DELETE", ROOT + "/" + id);
  if (!answer.ok && answer.status !== 404) throw await refusal(answer);
}
