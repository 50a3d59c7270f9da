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

  // The packers, of a group of each column.
  logic [TILE_N-1:0] full;
  logic [TILE_N*N*WIDTH-1:0] slots_kept;
  logic [TILE_N*N*PLACE-1:0] slots_place;
  for (genvar j = 0; j < TILE_N; j++) begin : of_column
    packer #(.N(N), .M(M), .WIDTH(WIDTH)) group (
        .values(values[j*M*WIDTH+:M*WIDTH]), .kept(slots_kept[j*N*WIDTH+:N*WIDTH]),
        .places(slots_place[j*N*PLACE+:N*PLACE]), .crowded(full[j])
    );
  end
  wire crowded = full != 0;

  always_ff @(posedge clk) begin
    if (write_left) left[address_row[4:0]][address_column[4:0]] <= values[WIDTH-1:0];
    if (write_right) begin
      for (int j = 0; j < TILE_N; j++) begin
        for (int i = 0; i < M; i++)
          dense[5'(address_column*TILE_N+j)][5'(address_row*M+i)] <= values[(j*M+i)*WIDTH+:WIDTH];
        for (int s = 0; s < N; s++) begin
          kept[5'(address_column*TILE_N+j)][5'(address_row*N+s)] <= slots_kept[(j*N+s)*WIDTH+:WIDTH];
          place[5'(address_column*TILE_N+j)][5'(address_row*N+s)] 
              <= slots_place[(j*N+s)*PLACE+:PLACE];
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

  // The multipliers of a cycle: ROWS x TILE_N sums of K_STEP products. A left value is that of a
  // group which lies at the place of the weight: in a dense run the weight's own.
  logic signed [WIDTH-1:0] one[ROWS][TILE_N][K_STEP], other[ROWS][TILE_N][K_STEP];
  for (genvar i = 0; i < ROWS; i++) begin : of_row
    for (genvar j = 0; j < TILE_N; j++) begin : of_column
      for (genvar s = 0; s < K_STEP; s++) begin : of_step
        wire [7:0] row = row_block + part * ROWS + 8'(i);
        wire [7:0] column = column_block + 8'(j);
        wire [7:0] at = step + 8'(s);
        wire [7:0] group = packed_run ? at / N : at / M;
        wire [PLACE-1:0] own = packed_run ? place[column[4:0]][at[4:0]] : PLACE'(at % M);
        logic [M*WIDTH-1:0] seen;
        for (genvar g = 0; g < M; g++) begin : of_group
          wire [7:0] source = group * M + 8'(g);
          assign seen[g*WIDTH+:WIDTH] = source < k ? left[row[4:0]][source[4:0]] : 0;
        end
        wire [WIDTH-1:0] met;
        pattern_multiplexer #(.M(M), .WIDTH(WIDTH)) of (.values(seen), .place(own), .value(met));
        assign one[i][j][s] = at < length && row < m && column < n ? met : 0;
        assign other[i][j][s] = packed_run ? kept[column[4:0]][at[4:0]] : dense[column[4:0]][at[4:0]];
      end
    end
  end
  logic signed [SUM-1:0] added[ROWS][TILE_N];
  always_comb begin
    for (int i = 0; i < ROWS; i++) begin
      for (int j = 0; j < TILE_N; j++) begin
        added[i][j] = 0;
        if (step != 0)
          added[i][j] = results[5'(row_block+part*ROWS+8'(i))][5'(column_block+8'(j))];
        for (int s = 0; s < K_STEP; s++)
          added[i][j] = added[i][j] + one[i][j][s] * other[i][j][s];
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

// The first N values of a group that are not zero, each with its place; and whether it has more.
module packer #(
    parameter N = 2,
    parameter M = 4,
    parameter WIDTH = 8
) (
    input logic [M*WIDTH-1:0] values,
    output logic [N*WIDTH-1:0] kept,
    output logic [N*$clog2(M)-1:0] places,
    output logic crowded
);
  localparam PLACE = $clog2(M);
  int used;
  always_comb begin
    kept = 0;
    places = 0;
    used = 0;
    for (int i = 0; i < M; i++) begin
      if (values[i*WIDTH+:WIDTH] != 0) begin
        for (int s = 0; s < N; s++) begin
          if (used == s) begin
            kept[s*WIDTH+:WIDTH] = values[i*WIDTH+:WIDTH];
            places[s*PLACE+:PLACE] = PLACE'(i);
          end
        end
        used = used + 1;
      end
    end
    crowded = used > N;
  end
endmodule

// The value of a group that lies at a place.
module pattern_multiplexer #(
    parameter M = 4,
    parameter WIDTH = 8
) (
    input logic [M*WIDTH-1:0] values,
    input logic [$clog2(M)-1:0] place,
    output logic [WIDTH-1:0] value
);
  assign value = values[place*WIDTH+:WIDTH];
endmodule
