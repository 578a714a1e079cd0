// A mesh with features in two textures and a tiny network DATA.layers [inputs, outputs] (see baked_mesh.py).
"use strict";

const VERTEX = `
  in vec4 corner;  // 16 bits within the mesh's box
  uniform vec3 low, extent, position;
  uniform mat3 axes;
  uniform vec2 focal, principal, size;
  uniform float near, far;
  out vec3 away;
  centroid out vec2 within;
  flat out int triangle;
  void main() {
    int k = gl_VertexID % 3;
    triangle = gl_VertexID / 3;
    within = vec2(k == 1 ? 1.0 : 0.0, k == 2 ? 1.0 : 0.0);
    away = low + corner.xyz * extent - position;
    vec3 p = transpose(axes) * away;
    vec2 image = 2.0 * (focal * p.xy + (principal - 0.5 * size) * p.z) / size;
    gl_Position = vec4(image.x, -image.y, ((far + near) * p.z - 2.0 * far * near) / (far - near), p.z);
  }`;

const FRAGMENT = () => `
  uniform sampler2D weights, first, second;
  in vec3 away;
  centroid in vec2 within;
  flat in int triangle;
  out vec4 color;
  ${texelCode}
  void main() {
    const int s = ${DATA.texels};
    ivec2 p = clamp(ivec2(floor(within * float(s))), 0, s - 1);
    int over = max(p.x + p.y - (s - 1), 0), less = min(over, p.x);
    p -= ivec2(less, over - less);
    if (triangle % 2 == 1) p = ivec2(s - p.x, s - 1 - p.y);
    int pair = triangle / 2, columns = ${DATA.wide} / (s + 1);
    p += ivec2(pair % columns * (s + 1), pair / columns * s);
    vec4 h[4], g[4];
    h[0] = texelFetch(first, p, 0);
    h[1] = texelFetch(second, p, 0);
    h[2] = vec4(normalize(away), 0.0);
    vec3 base = h[0].rgb;
    ${networkCode(DATA.layers)}
    color = vec4(base + ${lastArray(DATA.layers)}[0].rgb, 1.0);
  }`;

let mesh = null, corners = 0;

begin({
  coarse: 1,
  pixelsAtOnce: 1 << 30,
  async make() {
    mesh = program(VERTEX, FRAGMENT());
    await networkTexture(0, DATA.weights);
    for (const [i, name] of ["first", "second"].entries()) {
      texture(i + 1, gl.RGBA8, DATA.wide, DATA.height, gl.RGBA, gl.UNSIGNED_BYTE, await bytes(DATA[name]));
      gl.uniform1i(gl.getUniformLocation(mesh, name), i + 1);
    }
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    const packed = await bytes(DATA.corners), place = gl.getAttribLocation(mesh, "corner");
    corners = packed.length / 8;
    gl.bufferData(gl.ARRAY_BUFFER, packed, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, 4, gl.UNSIGNED_SHORT, true, 8, 0);
    gl.enable(gl.DEPTH_TEST);
    gl.clearColor(...DATA.background, 1);
  },
  draw(camera) {
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const far = Math.hypot(...plus(position(camera), DATA.low, -1)) + 2 * Math.hypot(...DATA.extent);
    uniforms(mesh, {axes: axes(camera), position: position(camera), low: DATA.low, extent: DATA.extent,
      focal: camera.focal, principal: camera.principal, size: camera.size, near: 0.002 * far, far});
    gl.drawArrays(gl.TRIANGLES, 0, corners);
  },
});
