// Ways to choose an image: file dialog, paste, and drop anywhere in the window.

/** @param {(file: File) => void} onImage called with the first file chosen, pasted or dropped */
export function listenForImages(onImage) {
  const first = (files) => files.length > 0 && onImage(files[0]);
  listenForDialog(first);
  document.addEventListener("paste", (event) => first(event.clipboardData.files));
  listenForDrops(first);
}

function listenForDialog(onFiles) {
  const input = document.querySelector("#file");
  input.addEventListener("change", () => {
    onFiles(input.files);
    input.value = ""; // else choosing the same file again would not be a change
  });
  for (const button of document.querySelectorAll("[data-pick]")) button.addEventListener("click", () => input.click());
}

/** The whole window accepts drops: outside a drop target the browser would navigate to the file. */
function listenForDrops(onFiles) {
  const overlay = document.querySelector("#drop-overlay");
  let depth = 0; // enter and leave are also sent for every nested element
  const setDepth = (value) => (overlay.hidden = (depth = value) <= 0);
  document.addEventListener("dragenter", () => setDepth(depth + 1));
  document.addEventListener("dragleave", () => setDepth(depth - 1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    setDepth(0);
    onFiles(event.dataTransfer.files);
  });
}
