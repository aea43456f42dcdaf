// What ipywidgets cannot do for the form around this part: fields with an error are marked as invalid for assistive
// technology, the form keeps its keys, and the focus outlives a form that is drawn again.
const FIELDS = "input, textarea, select, button, summary, [tabindex='0']";
const focused = new Map(); // of a form, by its name: the field that has the focus, and its number

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

const fieldsOf = (form) => [...form.querySelectorAll(FIELDS)];

function restoreFocus(form, key) {
  const last = focused.get(key);
  if (last === undefined || document.activeElement !== document.body) return;
  const field = last.target.isConnected ? last.target : fieldsOf(form)[last.number];
  if (field && !field.disabled) field.focus({ preventScroll: true });
}

function keepFocus(form, key) {
  restoreFocus(form, key);
  form.addEventListener("focusin", ({ target }) => {
    focused.set(key, { target, number: fieldsOf(form).indexOf(target) });
  });
  form.addEventListener("focusout", ({ relatedTarget }) => {
    // A form that leaves the page, and a button that is disabled while it has the focus, lose it to nothing.
    if (form.isConnected && relatedTarget && !form.contains(relatedTarget)) focused.delete(key);
  });
}

// JupyterLab takes plain keys in all that is no text field as commands for cells: an arrow would leave a list, and "dd"
// delete the cell. What a form needs stays there; keys with Ctrl or Alt, and Shift+Enter, are still JupyterLab's.
const KEEPS = "select, button, summary, input[type=checkbox], input[type=radio], [tabindex='0']:not(textarea)";

function keepKeys(form, event) {
  const { target, ctrlKey, metaKey, altKey, shiftKey, key } = event;
  if (!(target instanceof Element) || !form.contains(target)) return;
  const command = ctrlKey || metaKey || altKey || (shiftKey && key === "Enter");
  if (target.matches(KEEPS)) target.toggleAttribute("data-lm-suppress-shortcuts", !command);
}

function render({ model, el }) {
  let watcher, keys;
  const begin = () => {
    const form = el.closest(".acon-form");
    if (!form) return false;
    keys = (event) => keepKeys(form, event);
    window.addEventListener("keydown", keys, true); // before JupyterLab, which listens at the document
    watcher = new MutationObserver(() => {
      mark(form);
      restoreFocus(form, model.get("form")); // of a button that was disabled while it worked, and is enabled again
    });
    const attributeFilter = ["disabled"];
    watcher.observe(form, { attributeFilter, childList: true, characterData: true, subtree: true });
    mark(form);
    keepFocus(form, model.get("form"));
    document.addEventListener("pointerdown", forget, true);
    return true;
  };
  const forget = ({ target }) => target.closest?.(FIELDS) || focused.delete(model.get("form"));
  // The front end puts the view into the page after this returns.
  const timer = setInterval(() => begin() && clearInterval(timer), 100);
  return () => {
    clearInterval(timer);
    watcher?.disconnect();
    document.removeEventListener("pointerdown", forget, true);
    window.removeEventListener("keydown", keys, true);
  };
}

export default { render };
