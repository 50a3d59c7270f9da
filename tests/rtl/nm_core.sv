// A core of matrix units with n:m sparsity in the right operand:
// swatsim/simulator/machines/tensor_core/README.md, "What obeys the pattern" and "Cycles".
//
// The columns of the right operand (k x n) are written in group by group, m values of each of
// TILE_N columns at once. A packer keeps the first n values of a group that are not zero, each with
// its place, and notes whether any group has more; all are kept as they come, too. `start` then
// computes the product with left (m x k), block by block of TILE_M x TILE_N outputs, columns
// innermost: packed if every group obeys and that is shorter, else dense. A block takes steps of
// K_STEP kept values; of a step's products MACS are made in a cycle, rows of the block one after
// another. A multiplexer gives each kept value the left value of its place.
//
// `issue` is high in the cycles in which products are made. Results are read by address.
module nm_core #(
    parameter TILE_M = 4,
    parameter TILE_N = 4,
    parameter K_STEP = 4,
    parameter CYCLES = 2,  // of a step: TILE_M rows by so many cycles
    parameter N = 2,
    parameter M = 4,
    parameter WIDTH = 8,
    parameter SUM = 32,
    parameter SIZE = 32  // the most of m, n and k
) (
    input logic clk,
    input logic reset,
    input logic write_left,
    input logic write_right,
    input logic [7:0] address_row,  // of left; of right a group
    input logic [7:0] address_column,  // of left; of right a block of TILE_N columns
    input logic [TILE_N*M*WIDTH-1:0] values,
    input logic clear,  // before another right operand is written
    input logic [7:0] m,
    input logic [7:0] n,
    input logic [7:0] k,
    input logic start,
    output logic busy,
    output logic issue,
    output logic packed_run,
    output logic signed [SUM-1:0] result
);
  localparam ROWS = TILE_M / CYCLES;  // rows of a block that are at work in a cycle
  localparam PLACE = $clog2(M);

  logic signed [WIDTH-1:0] left[SIZE][SIZE];
  logic signed [WIDTH-1:0] dense[SIZE][SIZE];  // column, k
  logic signed [WIDTH-1:0] kept[SIZE][SIZE];  // column, slot
  logic [PLACE-1:0] place[SIZE][SIZE];
  logic signed [SUM-1:0] results[SIZE][SIZE];
  logic obeys;
  assign result = results[address_row[4:0]][address_column[4:0]];

  // The packer, of a group of each column.
  logic signed [WIDTH-1:0] slot[TILE_N][N];
  logic [PLACE-1:0] slot_place[TILE_N][N];
  logic crowded;
  int used;
  always_comb begin
    crowded = 0;
    for (int j = 0; j < TILE_N; j++) begin
      used = 0;
      for (int s = 0; s < N; s++) begin
        slot[j][s] = 0;
        slot_place[j][s] = 0;
      end
      for (int i = 0; i < M; i++) begin
        if (values[(j*M+i)*WIDTH+:WIDTH] != 0) begin
          if (used < N) begin
            slot[j][used] = values[(j*M+i)*WIDTH+:WIDTH];
            slot_place[j][used] = PLACE'(i);
          end
          used = used + 1;
        end
      end
      if (used > N) crowded = 1;
    end
  end

  always_ff @(posedge clk) begin
    if (write_left) left[address_row[4:0]][address_column[4:0]] <= values[WIDTH-1:0];
    if (write_right) begin
      for (int j = 0; j < TILE_N; j++) begin
        for (int i = 0; i < M; i++)
          dense[5'(address_column*TILE_N+j)][5'(address_row*M+i)] <= values[(j*M+i)*WIDTH+:WIDTH];
        for (int s = 0; s < N; s++) begin
          kept[5'(address_column*TILE_N+j)][5'(address_row*N+s)] <= slot[j][s];
          place[5'(address_column*TILE_N+j)][5'(address_row*N+s)] <= slot_place[j][s];
        end
      end
    end
    if (reset || clear) obeys <= 1;
    else if (write_right && crowded) obeys <= 0;
  end

  // Slots of a column: as many as k, or n of each group, whichever are fewer.
  wire [7:0] groups = (k + M - 1) / M;
  wire [7:0] slots = groups * N < k ? groups * N : k;
  assign packed_run = obeys && slots < k;
  wire [7:0] length = packed_run ? slots : k;

  logic [7:0] row_block, column_block, step, part;
  assign issue = busy;

  // The multipliers of a cycle: ROWS x TILE_N sums of K_STEP products.
  logic [7:0] row, column, at, source;
  logic signed [WIDTH-1:0] weight;
  logic signed [SUM-1:0] added[ROWS][TILE_N];
  always_comb begin
    for (int i = 0; i < ROWS; i++) begin
      for (int j = 0; j < TILE_N; j++) begin
        row = row_block + part * ROWS + 8'(i);
        column = column_block + 8'(j);
        added[i][j] = step == 0 ? 0 : results[row[4:0]][column[4:0]];
        for (int s = 0; s < K_STEP; s++) begin
          at = step + 8'(s);
          source = packed_run ? (at / N) * M + 8'(place[column[4:0]][at[4:0]]) : at;
          weight = packed_run ? kept[column[4:0]][at[4:0]] : dense[column[4:0]][at[4:0]];
          if (at < length && row < m && column < n && source < k)
            added[i][j] = added[i][j] + left[row[4:0]][source[4:0]] * weight;
        end
      end
    end
  end

  always_ff @(posedge clk) begin
    if (busy) begin
      for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < TILE_N; j++)
          if (row_block + part * ROWS + 8'(i) < m && column_block + 8'(j) < n)
            results[5'(row_block+part*ROWS+8'(i))][5'(column_block+8'(j))] <= added[i][j];
      part <= part + 1;
      if (part == CYCLES - 1) begin
        part <= 0;
        step <= step + K_STEP;
        if (step + K_STEP >= length) begin
          step <= 0;
          column_block <= column_block + TILE_N;
          if (column_block + TILE_N >= n) begin
            column_block <= 0;
            row_block <= row_block + TILE_M;
            if (row_block + TILE_M >= m) busy <= 0;
          end
        end
      end
    end
    if (start) begin
      busy <= 1;
      row_block <= 0;
      column_block <= 0;
      step <= 0;
      part <= 0;
    end
    if (reset) busy <= 0;
  end
endmodule
