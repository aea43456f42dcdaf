// Marks fields as invalid for assistive technology, with the error below them as their description.
function mark(form) {
  for (const field of form.querySelectorAll(".acon-field")) {
    const input = field.querySelector("input, textarea, select");
    const error = field.parentElement.querySelector(".acon-error");
    if (!input || !error) continue;
    error.id ||= `acon-error-${crypto.randomUUID()}`;
    const invalid = String(error.textContent.trim() !== "");
    if (input.getAttribute("aria-invalid") === invalid) continue;
    input.setAttribute("aria-invalid", invalid);
    if (invalid === "true") input.setAttribute("aria-describedby", error.id);
    else input.removeAttribute("aria-describedby");
  }
}

function render({ el }) {
  let watcher;
  const begin = () => {
    const form = el.closest(".acon-form");
    if (!form) return false;
    watcher = new MutationObserver(() => mark(form));
    watcher.observe(form, { childList: true, characterData: true, subtree: true });
    mark(form);
    return true;
  };
  // The front end puts the view into the page after this returns.
  const timer = setInterval(() => begin() && clearInterval(timer), 100);
  return () => {
    clearInterval(timer);
    watcher?.disconnect();
  };
}

export default { render };
