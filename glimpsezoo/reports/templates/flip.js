'use strict';
const slides = [...document.querySelectorAll('.slide')], of = id => document.getElementById(id), step = of('step');
let at = 0;
function show() {
  slides.forEach((slide, k) => { slide.hidden = k !== at; });
  of('place').textContent = 'Image ' + (at + 1) + ' of ' + slides.length;
  of('shown').textContent = step.value;
  for (const shape of slides[at].querySelectorAll('[data-step]'))
    shape.style.display = Number(shape.dataset.step) > Number(step.value) ? 'none' : '';
}
function turn(by) { at = (at + by + slides.length) % slides.length; show(); }
function go(by) { step.value = Number(step.value) + by; show(); }
of('previous').addEventListener('click', () => turn(-1));
of('next').addEventListener('click', () => turn(1));
step.addEventListener('input', show);
document.addEventListener('keydown', event => {
  if (event.target === step || event.altKey || event.ctrlKey || event.metaKey) return;
  const act = {ArrowRight: () => turn(1), ArrowLeft: () => turn(-1), ArrowDown: () => go(1), ArrowUp: () => go(-1)}[event.key];
  if (act) { event.preventDefault(); act(); }
});
of('bar').hidden = false;
show();
