// A task is a tile of pixels, whose positions, features and values stay in the first two caches.
#include "picture_frame.h"

#include "../encodings/grid_lattice.h"
#include "../networks/grid_field.h"

using namespace radfield;

namespace {

// 17 rows, so that the streams of features are no power of two apart: these would share a few lines of the first cache.
constexpr int64_t TILE_ROWS = 17, TILE_COLUMNS = MOST_COLUMNS, TILE = TILE_ROWS * TILE_COLUMNS;

struct Tile {
  int64_t row, column, rows, columns;
};

// y [O][n] to the tile's place in `values`.
template <class T>
void store_tile(const PictureFrame& a, const Tile& t, float* y, float most) {
  const int64_t n = t.rows * t.columns;
  for (int64_t i = 0; i < a.O * n; i += W) {
    const int m = (int)(a.O * n - i < W ? a.O * n - i : W);
    const vf v = load_n(y + i, m);
    store_n(y + i, most > 0.0f ? quantized(v, most) : v * (float)a.peak, m);
  }
  for (int64_t j = 0; j < t.rows; ++j) {
    T* to = (T*)a.values + ((t.row + j) * a.columns + t.column) * a.O;
    for (int64_t i = 0; i < t.columns; ++i)
      for (int64_t o = 0; o < a.O; ++o) *to++ = (T)y[o * n + j * t.columns + i];
  }
}

void render_tile(const PictureFrame& a, const GridField& field, const Tile& t) {
  StageClock clock(a.nanoseconds);
  const int64_t n = t.rows * t.columns;
  float* y = (float*)scratch(4 * a.O * TILE + field.feature_bytes(TILE), 1);
  HashGridForward grid = field.grid;
  grid.features = y + a.O * TILE, grid.M = n;
  clock.start();
  lattice_forward(grid, a.across + t.column, (int)t.columns, a.down + t.row, (int)t.rows);
  clock.stop(0);
  field.ask_network(y, grid.features, nullptr, n, clock);
  if (a.values_type == U8) store_tile<uint8_t>(a, t, y, 255.0f);
  else if (a.values_type == U16) store_tile<uint16_t>(a, t, y, 65535.0f);
  else store_tile<float>(a, t, y, 0.0f);
}

}  // namespace

RADFIELD_OP(picture_frame, PictureFrame) {
  const GridField field(a, 2, 0, F32);
  field.pack();
  const int64_t across = (a.columns + TILE_COLUMNS - 1) / TILE_COLUMNS, down = (a.rows + TILE_ROWS - 1) / TILE_ROWS;
  parallel_for(across * down, [&](int64_t task) {
    Tile t{task / across * TILE_ROWS, task % across * TILE_COLUMNS, TILE_ROWS, TILE_COLUMNS};
    if (t.row + t.rows > a.rows) t.rows = a.rows - t.row;
    if (t.column + t.columns > a.columns) t.columns = a.columns - t.column;
    render_tile(a, field, t);
  });
}
