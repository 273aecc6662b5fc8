"use strict";
// Everything works without this script; it only spares reloading. Fragments of HTML come from the console, which escapes texts.

// The page of a job: how far it is.
const job = document.querySelector("[data-events]");
if (job) {
  const events = new EventSource(job.dataset.events);
  const show = (event) => { job.innerHTML = event.data; };
  events.addEventListener("update", show);
  events.addEventListener("over", (event) => {
    events.close();
    show(event);
    const next = job.querySelector("[data-continue]");
    if (next) { location.replace(next.dataset.continue); }
  });
}

// A part that is loaded again and again while the page is visible.
for (const part of document.querySelectorAll("[data-refresh]")) {
  setInterval(async () => {
    if (document.hidden) { return; }
    try {
      const answer = await fetch(part.dataset.refresh);
      if (answer.ok && !answer.redirected) { part.innerHTML = await answer.text(); }
    } catch { /* the console restarts: the next time */ }
  }, 2000);
}

// The editor: what the worker's decoder says of the body as it is typed.
for (const editor of document.querySelectorAll("textarea[data-validate]")) {
  const result = document.getElementById("validation");
  let timer, request;
  const validate = async () => {
    request?.abort();
    request = new AbortController();
    try {
      const body = new URLSearchParams(new FormData(editor.form));
      const answer = await fetch(editor.dataset.validate, { method: "POST", body, signal: request.signal });
      result.innerHTML = answer.ok ? await answer.text() : "";
    } catch { /* a newer request, or the console restarts */ }
  };
  editor.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(validate, 300); });
  validate();
}
