// A view of a console in the page: xterm.js fed by binary comm messages. The Python side is acon_nb/widgets/stream.py.
import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import "./console.css";

const ALIVE_MS = 5000; // how often a view reports what it has shown; Python then sends again what was lost
const SILENT_MS = 13000; // after this long without an answer the kernel is gone or busy
const ACK_BYTES = 32768;
const PIECE_BYTES = 16384; // of what is typed or pasted, per message
const SETTLED_MS = 200; // a size that no other follows within this time reaches the guest
const LEAVE_MS = 2000; // Esc Esc Tab within this time leaves the terminal: all other keys are the guest's
// Queries that a terminal answers by itself: only the leading view may, and never those in replayed output.
const QUERIES = [
  { final: "n" }, { prefix: "?", final: "n" }, { final: "c" }, { prefix: ">", final: "c" }, { prefix: "=", final: "c" },
  { intermediates: "$", final: "p" }, { prefix: "?", intermediates: "$", final: "p" }, { final: "t" },
];

function element(parent, tag, name, text) {
  const made = document.createElement(tag);
  made.className = name;
  if (text) made.textContent = text;
  parent.append(made);
  return made;
}

function button(parent, text, title, action) {
  const made = element(parent, "button", "acon-console-button", text);
  made.title = title;
  made.type = "button";
  made.addEventListener("click", action);
  return made;
}

// Shows chunks in the order of their positions, one at a time, and duplicates only once.
class Output {
  constructor(term, acknowledge) {
    this.term = term;
    this.acknowledge = acknowledge;
    this.next = -1; // position of the first byte not yet received; -1: unknown before the first chunk
    this.shown = -1;
    this.acknowledged = 0;
    this.early = new Map();
    this.queue = [];
    this.busy = false;
    this.answers = false;
  }

  take(head, data) {
    const from = head.position - head.skipped;
    if (this.next < 0) this.next = head.begin;
    if (from > this.next) {
      this.early.set(from, [head, data]);
      return;
    }
    const end = head.position + data.length;
    if (end > this.next) {
      const skip = Math.max(0, this.next - head.position);
      this.queue.push({ head, data: data.subarray(skip), end });
      this.next = end;
    }
    for (const [key, held] of this.early) {
      if (key > this.next) continue;
      this.early.delete(key);
      this.take(...held);
      return;
    }
    this.write();
  }

  write() {
    if (this.busy || this.queue.length === 0) return;
    const { head, data, end } = this.queue.shift();
    this.busy = true;
    this.answers = head.lead && !head.replay;
    if (head.skipped) this.term.write(`\r\n\x1b[7m[${head.skipped} bytes not shown: see the transcript]\x1b[0m\r\n`);
    this.term.write(data, () => {
      this.busy = false;
      this.shown = end;
      if (end - this.acknowledged >= ACK_BYTES) {
        this.acknowledged = end;
        this.acknowledge();
      }
      this.write();
    });
  }
}

// Copy with Ctrl+C if text is selected, paste with Ctrl+V, like Lab's own terminals.
// Esc Esc Tab (or Shift+Tab) moves the focus out, which nothing else does; the guest gets both Esc, but no Tab.
function keys(term) {
  let escapes = [];
  term.attachCustomKeyEventHandler((event) => {
    if (event.type === "keydown" && event.key === "Tab" && escapes.length >= 2 && event.timeStamp - escapes[0] < LEAVE_MS) {
      escapes = [];
      return false; // the browser moves the focus
    }
    if (event.type === "keydown" && event.key !== "Shift")
      escapes = event.key === "Escape" && !event.repeat ? [...escapes, event.timeStamp].slice(-2) : [];
    if (event.type !== "keydown" || !event.ctrlKey || event.altKey) return true;
    const key = event.key.toLowerCase();
    if (key === "v") return false; // the browser's paste event follows
    if (key === "c" && (event.shiftKey || term.hasSelection())) {
      event.preventDefault();
      copy(term.getSelection());
      term.clearSelection();
      return false;
    }
    return true;
  });
}

function copy(text) {
  if (!text) return;
  const old = () => {
    const area = element(document.body, "textarea", "acon-console-copy");
    area.value = text;
    area.select();
    document.execCommand("copy");
    area.remove();
  };
  if (navigator.clipboard) navigator.clipboard.writeText(text).catch(old);
  else old();
}

// The direct channel to the kernel's process, if the server has our extension (acon_nb/jupyter/server_extension.py):
// `send` returns false while there is none. A broken one is reconnected after ALIVE_MS.
class Channel {
  constructor(address, opened, receive) {
    [this.name, this.key] = address.split("/");
    this.opened = opened;
    this.receive = receive;
    this.closed = false;
    this.connect();
  }

  connect() {
    if (this.closed || this.socket?.readyState <= WebSocket.OPEN) return;
    const settings = pageSettings();
    if (!settings.aconChannels || !this.key) return;
    const address = new URL(settings.baseUrl + settings.aconChannels + this.name, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    if (settings.token) address.searchParams.set("token", settings.token);
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = this.opened;
    this.socket.onmessage = ({ data }) => {
      const bytes = new Uint8Array(data);
      const end = bytes.indexOf(10);
      this.receive(JSON.parse(new TextDecoder().decode(bytes.subarray(0, end))), [bytes.subarray(end + 1)]);
    };
  }

  send(head, data = new Uint8Array()) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    const start = new TextEncoder().encode(`${JSON.stringify({ ...head, channel: this.key })}\n`);
    const message = new Uint8Array(start.length + data.length);
    message.set(start);
    message.set(data, start.length);
    this.socket.send(message);
    return true;
  }

  close() {
    this.closed = true;
    this.socket?.close();
  }
}

function pageSettings() {
  try {
    return JSON.parse(document.getElementById("jupyter-config-data").textContent);
  } catch {
    return {}; // not Jupyter's page
  }
}

function render({ model, el }) {
  const view = crypto.randomUUID();
  const box = element(el, "div", "acon-console");
  box.dataset.lmSuppressShortcuts = "true"; // Lab leaves the keys to us
  box.dataset.jpSuppressContextMenu = "true"; // and the right button to the browser
  const bar = element(box, "div", "acon-console-bar");
  const state = element(bar, "span", "acon-console-state");
  const size = element(bar, "span", "acon-console-size");
  const screen = element(box, "div", "acon-console-screen");
  const leave = element(box, "div", "acon-console-leave", "Esc Esc Tab leaves the terminal");
  leave.id = `acon-leave-${view}`;
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", "Console of the guest");
  state.setAttribute("role", "status");
  // No blinking: Chromium delays a message until the frame after a key if a frame is requested, and an animation
  // always requests one. That more than doubled the time from key to echo.
  const term = new Terminal({
    rows: model.get("rows"), scrollback: 5000, cursorBlink: false, convertEol: false, fontSize: 13,
    fontFamily: '"DejaVu Sans Mono", Menlo, Consolas, monospace', screenReaderMode: false,
  });
  const fit = new FitAddon();
  term.loadAddon(fit);
  screen.style.height = `${model.get("rows") * 15 + 10}px`;

  let number = 0;
  let opened = false;
  let heard = performance.now();
  const encoder = new TextEncoder();
  const send = (head, data) => channel.send(head, data) || model.send(head, undefined, data && [data]);
  const type = (bytes) => {
    for (let at = 0; at < bytes.length; at += PIECE_BYTES)
      send({ kind: "input", view, number: number++ }, bytes.slice(at, at + PIECE_BYTES));
  };
  const want = () => send({ kind: "want", view, position: output.shown });
  let settling = 0;
  const fitted = () => { // only the last size of a drag: messages may overtake each other
    clearTimeout(settling);
    settling = setTimeout(() => send({ kind: "size", view, rows: term.rows, columns: term.cols }), SETTLED_MS);
  };
  const output = new Output(term, want);

  button(bar, "Fit the guest", "Type a stty command that sets this terminal's size, in a guest without our /init", () => {
    type(encoder.encode(`stty rows ${term.rows} cols ${term.cols}\r`));
    term.focus();
  });
  const reader = button(bar, "Screen reader", "Let a screen reader read what the guest prints", () => {
    term.options.screenReaderMode = !term.options.screenReaderMode;
    reader.setAttribute("aria-pressed", String(term.options.screenReaderMode));
  });
  reader.setAttribute("aria-pressed", "false");
  button(bar, "Copy all", "Copy everything in this terminal", () => {
    term.selectAll();
    copy(term.getSelection());
    term.clearSelection();
  });

  const showState = () => {
    const silent = performance.now() - heard > SILENT_MS;
    state.textContent = silent ? "no answer from the kernel" : model.get("state");
    state.title = model.get("transcript");
    box.classList.toggle("acon-console-off", silent || model.get("ended"));
  };
  const receive = (message, buffers) => {
    heard = performance.now();
    if (message.kind === "output" && message.view === view) {
      const data = buffers[0];
      output.take(message, new Uint8Array(data.buffer ?? data, data.byteOffset ?? 0, data.byteLength));
    }
    showState();
  };
  const channel = new Channel(model.get("channel"), () => { if (opened) want(); }, receive);
  model.on("msg:custom", receive);
  model.on("change:state", showState);
  model.on("change:ended", showState);

  for (const query of QUERIES) term.parser.registerCsiHandler(query, () => !output.answers);
  for (const code of [4, 10, 11, 12]) term.parser.registerOscHandler(code, (text) => text.includes("?") && !output.answers);
  term.parser.registerDcsHandler({ intermediates: "$", final: "q" }, () => !output.answers);
  term.onData((text) => type(encoder.encode(text)));
  term.onBinary((text) => type(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
  term.onResize(({ cols, rows }) => {
    size.textContent = `${cols} × ${rows}`;
    fitted();
  });
  keys(term);

  // Fitting waits until Lab has put the view into the page, then follows its size.
  const watcher = new ResizeObserver(() => {
    if (!screen.clientWidth) return;
    if (!opened) {
      opened = true;
      term.open(screen);
      term.textarea.setAttribute("aria-describedby", leave.id);
      want();
      fitted();
    }
    fit.fit();
  });
  watcher.observe(screen);
  const alive = setInterval(() => {
    channel.connect();
    if (opened) want();
    showState();
  }, ALIVE_MS);
  showState();
  return () => {
    clearInterval(alive);
    clearTimeout(settling);
    watcher.disconnect();
    model.off("msg:custom", receive);
    model.off("change:state", showState);
    model.off("change:ended", showState);
    send({ kind: "bye", view });
    channel.close();
    term.dispose();
  };
}

export default { render };
