// A neural light field: a network of DATA.layers [inputs, outputs] per pixel (see light_field.py).
"use strict";

function source() {
  const {points, frequencies, layers} = DATA, inputs = layers[0][0];
  const widest = Math.ceil(Math.max(inputs, layers[0][1]) / 4);
  return `
  uniform sampler2D weights;
  uniform mat3 axes;
  uniform vec3 position, centre, background;
  uniform vec2 focal, principal;
  uniform float radius, rows;
  out vec4 color;
  ${texelCode}
  void main() {
    vec2 pixel = vec2(gl_FragCoord.x, rows - gl_FragCoord.y);
    vec3 d = normalize(axes * vec3((pixel - principal) / focal, 1.0)), offset = position - centre;
    float along = dot(offset, d), half2 = radius * radius - dot(offset, offset) + along * along;
    float half1 = sqrt(max(half2, 0.0)), near = max(-along - half1, 0.0), far = half1 - along;
    color = vec4(background, 1.0);
    if (half2 <= 0.0 || far <= 0.0) return;
    vec4 h[${widest}], g[${widest}];
    for (int i = 0; i < ${Math.ceil(inputs / 4)}; ++i) h[i] = vec4(0.0);
    for (int k = 0; k < ${points}; ++k) {
      float t = near + float(k) / ${Math.max(points - 1, 1).toFixed(1)} * (far - near);
      vec3 x = (offset + t * d) / radius;
      for (int axis = 0; axis < 3; ++axis) {
        int at = 2 * ${frequencies} * (3 * k + axis);
        for (int f = 0; f < ${frequencies}; ++f) {
          float angle = 3.14159265358979 * exp2(float(f)) * x[axis];
          int s = at + f, c = at + ${frequencies} + f;
          h[s >> 2][s & 3] = sin(angle);
          h[c >> 2][c & 3] = cos(angle);
        }
        int raw = ${6 * points * frequencies} + 3 * k + axis;
        h[raw >> 2][raw & 3] = x[axis];
      }
    }
    ${networkCode(layers)}
    vec4 seen = 1.0 / (1.0 + exp(-${lastArray(layers)}[0]));
    color = vec4(seen.rgb + (1.0 - seen.a) * background, 1.0);
  }`;
}

const EVERYWHERE = `
  void main() { gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0); }`;

let light = null;

begin({
  coarse: 4,
  pixelsAtOnce: 1 << 15,
  async make() {
    light = program(EVERYWHERE, source());
    await networkTexture(0, DATA.weights);
    gl.enable(gl.SCISSOR_TEST);
  },
  draw(camera, first, end) {
    const [width, height] = camera.size;
    gl.scissor(0, height - end, width, end - first);
    uniforms(light, {axes: axes(camera), position: position(camera), centre: DATA.centre, background: DATA.background,
      focal: camera.focal, principal: camera.principal, radius: DATA.radius, rows: height});
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  },
});
