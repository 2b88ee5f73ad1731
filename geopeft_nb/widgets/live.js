// Shows the pictures of a run that live.py sends, with a button above them that ends it.
function render({ model, el }) {
  el.innerHTML = `<div class="gp-dashboard"><button>■ Stop and keep best</button>
    <span role="status" aria-live="polite"></span><img style="max-width:100%;display:block"></div>`;
  const [root, button, status, image] = ["div", "button", "span", "img"].map((kind) => el.querySelector(kind));
  button.title = "Ends training after this step and keeps the best weights so far. Interrupting the kernel ends it at once, and keeps them too.";
  button.onclick = () => {
    button.disabled = true;
    status.textContent = "stopping after this step";
    model.send({ event: "stop" });
  };
  const draw = () => {
    const { picture, words, state, step } = model.get("view");
    Object.assign(root.dataset, { state, step });
    Object.assign(image, { src: picture, alt: words });
  };
  model.on("change:view", draw);
  draw();
}

export default { render };
