// What both kinds of page share: data, cameras, the mouse, pixels. A camera is {pose, focal, principal, size}: pose is
// camera to scene, 16 numbers by rows, OpenCV axes (x right, y down, z forward); lengths on the image are pixels.
"use strict";

const canvas = document.getElementById("picture");
const gl = canvas.getContext("webgl2", {preserveDrawingBuffer: true, antialias: true, alpha: false});

async function bytes(text) {
  const packed = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function program(vertex, fragment) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, "#version 300 es\nprecision highp float;\nprecision highp int;\n" +
      "precision highp sampler2D;\nprecision highp usampler2D;\n" + source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  gl.useProgram(made);
  return made;
}

function texture(unit, internal, width, height, format, type, values) {
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  gl.texImage2D(gl.TEXTURE_2D, 0, internal, width, height, 0, format, type, values);
  for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
  for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, name, gl.CLAMP_TO_EDGE);
}

function uniforms(made, values) {
  for (const [name, value] of Object.entries(values)) {
    const place = gl.getUniformLocation(made, name);
    if (typeof value == "number") gl.uniform1f(place, value);
    else if (value.length == 9) gl.uniformMatrix3fv(place, true, value);
    else gl["uniform" + value.length + "fv"](place, value);
  }
}

// A network in a texture of 16-bit floats (see network_texels.py): the GLSL that reads a texel, and what takes the array
// h of vec4 through the layers [inputs, outputs], by turns into g and h; the last one's outputs are in lastArray.
const WIDE = 1024;  // texels in a row
const texelCode = `vec4 texel(int i) { return texelFetch(weights, ivec2(i % ${WIDE}, i / ${WIDE}), 0); }`;
const lastArray = layers => layers.length % 2 ? "g" : "h";

function networkCode(layers) {
  const quads = n => Math.ceil(n / 4);
  let base = 0, code = "";
  layers.forEach(([from, to], i) => {
    const [a, b] = i % 2 ? ["g", "h"] : ["h", "g"], biases = base + 4 * quads(from) * quads(to);
    code += `
    for (int r = 0; r < ${quads(to)}; ++r) {
      vec4 s = texel(${biases} + r);
      int at = ${base} + ${4 * quads(from)} * r;
      for (int c = 0; c < ${quads(from)}; ++c, at += 4) {
        vec4 v = ${a}[c];
        s += texel(at) * v.x + texel(at + 1) * v.y + texel(at + 2) * v.z + texel(at + 3) * v.w;
      }
      ${b}[r] = ${i == layers.length - 1 ? "s" : "max(s, 0.0)"};
    }`;
    base = biases + quads(to);
  });
  return code;
}

async function networkTexture(unit, text) {
  const packed = new Uint16Array((await bytes(text)).buffer), tall = Math.ceil(packed.length / 4 / WIDE);
  const values = new Uint16Array(4 * WIDE * tall);
  values.set(packed);
  texture(unit, gl.RGBA16F, WIDE, tall, gl.RGBA, gl.HALF_FLOAT, values);
}

// Of a camera: rotation by rows, and position.
const axes = camera => [0, 1, 2, 4, 5, 6, 8, 9, 10].map(i => camera.pose[i]);
const position = camera => [3, 7, 11].map(i => camera.pose[i]);

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const plus = (a, b, s) => a.map((v, i) => v + s * b[i]);
const unit = a => a.map(v => v / Math.hypot(...a));

// The orbit: around DATA.target, with DATA.up upwards, from DATA.start [azimuth, elevation, distance].
const orbit = {azimuth: DATA.start[0], elevation: DATA.start[1], distance: DATA.start[2]};

function orbiting(width, height) {
  const up = unit(DATA.up), side = unit(cross(Math.abs(up[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0], up)), other = cross(up, side);
  const level = plus(side.map(v => v * Math.cos(orbit.azimuth)), other, Math.sin(orbit.azimuth));
  const out = plus(level.map(v => v * Math.cos(orbit.elevation)), up, Math.sin(orbit.elevation));
  const eye = plus(DATA.target, out, orbit.distance), z = out.map(v => -v), x = unit(cross(z, up)), y = cross(z, x);
  const focal = 0.5 * Math.min(width, height) / Math.tan(0.5 * DATA.angle);
  const pose = [0, 1, 2].flatMap(i => [x[i], y[i], z[i], eye[i]]).concat([0, 0, 0, 1]);
  return {pose, focal: [focal, focal], principal: [width / 2, height / 2], size: [width, height]};
}

let moving = 0, waiting = 0;

function resize(width, height) {
  if (canvas.width != width || canvas.height != height) { canvas.width = width; canvas.height = height; }
  gl.viewport(0, 0, width, height);
}

// Draws what the orbit sees: at once in `coarse` times fewer pixels while it moves, then whole, in strips where that
// takes long, so that the page stays awake.
function show() {
  cancelAnimationFrame(moving);
  clearTimeout(waiting);
  const width = innerWidth, height = innerHeight, coarse = page.coarse;
  moving = requestAnimationFrame(() => {
    const size = [Math.ceil(width / coarse), Math.ceil(height / coarse)];
    resize(...size);
    page.draw(orbiting(...size), 0, size[1]);
    if (coarse > 1) waiting = setTimeout(() => {
      resize(width, height);
      const camera = orbiting(width, height), rows = Math.max(16, Math.ceil(page.pixelsAtOnce / width));
      const strip = from => {
        page.draw(camera, from, Math.min(from + rows, height));
        if (from + rows < height) moving = requestAnimationFrame(() => strip(from + rows));
      };
      strip(0);
    }, 120);
  });
}

function listen() {
  let last = null;
  canvas.onpointerdown = event => { last = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); };
  canvas.onpointerup = () => { last = null; };
  canvas.onpointermove = event => {
    if (!last) return;
    orbit.azimuth -= 0.008 * (event.clientX - last[0]);
    orbit.elevation = Math.max(-1.5, Math.min(1.5, orbit.elevation + 0.008 * (event.clientY - last[1])));
    last = [event.clientX, event.clientY];
    show();
  };
  canvas.onwheel = event => {
    event.preventDefault();
    const nearest = 0.4 * DATA.start[2], farthest = 3 * DATA.start[2];
    orbit.distance = Math.max(nearest, Math.min(farthest, orbit.distance * Math.exp(0.001 * event.deltaY)));
    show();
  };
  onresize = show;
}

// For scripts: draws a camera of any size and returns its pixels, rows from the top, RGBA in base64.
function pixels(camera) {
  cancelAnimationFrame(moving);
  clearTimeout(waiting);
  const [width, height] = camera.size;
  resize(width, height);
  page.draw(camera, 0, height);
  const found = new Uint8Array(4 * width * height), row = 4 * width;
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, found);
  let text = "";
  for (let y = height - 1; y >= 0; y--)
    for (let i = 0; i < row; i++) text += String.fromCharCode(found[y * row + i]);
  show();
  return btoa(text);
}

// page: what draws, from light_field.js or baked_mesh.js: {make(), draw(camera, first row, past the last), coarse,
// pixelsAtOnce}
let page = null;

async function begin(made) {
  const note = document.getElementById("note");
  try {
    if (!gl) throw new Error("this browser has no WebGL 2");
    page = made;
    await page.make();
    window.radfield = {pixels, ready: true};
    note.remove();
    listen();
    show();
  } catch (error) {
    note.textContent = "This page could not be drawn: " + error.message;
    window.radfield = {error: error.message};
  }
}
