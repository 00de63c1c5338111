// Picture files: opened, shown, made small enough to send, and taken from a drop together with their folders.

import { element } from "./dom.js";

const MAX_SIDE = 384; // pixels; the networks look at 28 to 84, so nothing is lost by sending no more
const MAX_BYTES = 200_000; // of a file that is sent as it is

async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(text);
}

function shrink(image, type) {
  const scale = Math.min(1, MAX_SIDE / Math.max(image.naturalWidth, image.naturalHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(scale * image.naturalWidth));
  canvas.height = Math.max(1, Math.round(scale * image.naturalHeight));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const photo = type === "image/jpeg"; // what may be transparent stays PNG
  return new Promise((resolve) => canvas.toBlob(resolve, photo ? "image/jpeg" : "image/png", 0.92));
}

/** Opens a file: {name, url (to show it), file (base64, to send it)}. Throws an Error for people if it is no picture. */
export async function openPicture(file) {
  const url = URL.createObjectURL(file);
  const image = element("img", { src: url });
  try {
    await image.decode();
  } catch {
    URL.revokeObjectURL(url);
    throw new Error(`${file.name} could not be opened as a picture. PNG, JPEG, GIF and WebP files work.`);
  }
  const large = file.size > MAX_BYTES || Math.max(image.naturalWidth, image.naturalHeight) > MAX_SIDE;
  return { name: file.name, url, file: await base64(large ? await shrink(image, file.type) : file) };
}

/** Opens several files: the pictures among them, and an Error that names the others (or null). */
export async function openPictures(files) {
  const results = await Promise.allSettled([...files].map(openPicture));
  const pictures = results.filter((result) => result.status === "fulfilled").map((result) => result.value);
  const failures = results.filter((result) => result.status === "rejected").map((result) => result.reason.message);
  const more = failures.length > 3 ? ` And ${failures.length - 3} more.` : "";
  return { pictures, problem: failures.length ? new Error(failures.slice(0, 3).join(" ") + more) : null };
}

async function filesUnder(folder) {
  const reader = folder.createReader();
  const files = [];
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // at most 100 at once
    if (entries.length === 0) return files;
    for (const entry of entries) {
      if (entry.isFile && !entry.name.startsWith(".")) files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    }
  }
}

/** What was dropped: {files, folders: [{name, files}]}. Entries must be asked for before the event is over. */
export async function dropped(event) {
  const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.() ?? null);
  const files = [...event.dataTransfer.files].filter((_, index) => !entries[index]?.isDirectory);
  const folders = entries.filter((entry) => entry?.isDirectory);
  return {
    files,
    folders: await Promise.all(folders.map(async (folder) => ({ name: folder.name, files: await filesUnder(folder) }))),
  };
}

/** Makes `target` take drops: `took({files, folders})`. */
export function acceptDrops(target, took) {
  target.addEventListener("dragover", (event) => {
    event.preventDefault();
    event.stopPropagation();
    target.classList.add("over");
  });
  target.addEventListener("dragleave", () => target.classList.remove("over"));
  target.addEventListener("drop", async (event) => {
    event.preventDefault();
    event.stopPropagation();
    target.classList.remove("over");
    took(await dropped(event));
  });
}
