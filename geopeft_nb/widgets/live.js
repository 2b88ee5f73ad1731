// Shows the progress and the pictures of a run that live.py sends, with a button that ends it.
function render({ model, el }) {
  el.innerHTML = `<div class="gp-dashboard">
    <div style="display:flex;gap:.8em;align-items:center;white-space:nowrap;overflow:hidden">
      <button>■ Stop and keep best</button><b role="status" aria-live="polite"></b><span></span>
    </div><img style="max-width:100%;display:block"></div>`;
  const [root, button, status, line, image] =
    ["div", "button", "b", "span", "img"].map((kind) => el.querySelector(kind));
  button.title = "Ends training after this step and keeps the best weights so far. Interrupting the kernel ends it at once, and keeps them too.";
  button.onclick = () => {
    button.disabled = true;
    status.textContent = "stopping after this step";
    model.send({ event: "stop" });
  };
  const draw = () => {
    const { picture, words } = model.get("view");
    Object.assign(image, { src: picture, alt: words });
  };
  const tell = () => {
    const { state, step, line: said } = model.get("progress");
    Object.assign(root.dataset, { state, step });
    line.textContent = said;
  };
  model.on("change:view", draw);
  model.on("change:progress", tell);
  draw();
  tell();
}

export default { render };
