// A systolic array of ROWS x COLUMNS PEs, output stationary (WEIGHTS_STAY = 0) or weight stationary
// (1): swatsim/simulator/machines/systolic/README.md, "Folds". Values move from PE to neighbour,
// each with a bit that says whether it is one; a fold is over when the last wave's mark has reached
// the last PE, and the next one begins in the cycle after. No part of it counts with a formula.
//
// A product left (m x k) times right (k x n) is written in first, a value a cycle; `start` then
// computes all folds: blocks of columns outer, blocks of rows inner. `issue` is high in the cycles
// of folds. Results are read by address when `busy` is low.
module systolic #(
    parameter ROWS = 4,
    parameter COLUMNS = 4,
    parameter WEIGHTS_STAY = 0,
    parameter WIDTH = 8,
    parameter SUM = 32,
    parameter SIZE = 32  // the most of m, n and k
) (
    input logic clk,
    input logic reset,
    input logic write_left,
    input logic write_right,
    input logic [7:0] address_row,
    input logic [7:0] address_column,
    input logic signed [WIDTH-1:0] value,
    input logic [7:0] m,
    input logic [7:0] n,
    input logic [7:0] k,
    input logic start,
    output logic busy,
    output logic issue,
    output logic signed [SUM-1:0] result
);
  logic signed [WIDTH-1:0] left[SIZE][SIZE];
  logic signed [WIDTH-1:0] right[SIZE][SIZE];
  logic signed [SUM-1:0] results[SIZE][SIZE];
  assign result = results[address_row[4:0]][address_column[4:0]];

  always_ff @(posedge clk) begin
    if (write_left) left[address_row[4:0]][address_column[4:0]] <= value;
    if (write_right) right[address_row[4:0]][address_column[4:0]] <= value;
  end

  // What lies on the array's rows, on its columns, and streams past.
  wire [7:0] on_rows = WEIGHTS_STAY != 0 ? k : m;
  wire [7:0] on_columns = n;
  wire [7:0] streams = WEIGHTS_STAY != 0 ? m : k;

  logic [7:0] row_block, column_block;  // first row and column of the fold
  logic [7:0] loading;  // rows of weights that still come in
  logic [7:0] front[ROWS];  // the wave that enters each row next
  logic [7:0] top_front[COLUMNS];
  logic began[ROWS];  // rows that the first wave has entered
  logic top_began[COLUMNS];

  // What moves, and what stays.
  logic signed [WIDTH-1:0] across[ROWS][COLUMNS];  // left values, handed to the right
  logic across_is[ROWS][COLUMNS];
  logic across_last[ROWS][COLUMNS];
  logic [7:0] across_wave[ROWS][COLUMNS];
  logic signed [SUM-1:0] down[ROWS][COLUMNS];  // os: right values; ws: weights, then sums
  logic signed [WIDTH-1:0] held[ROWS][COLUMNS];
  logic signed [SUM-1:0] sums[ROWS][COLUMNS];

  logic signed [WIDTH-1:0] enters[ROWS], comes[ROWS][COLUMNS];
  logic enters_is[ROWS], enters_last[ROWS], comes_is[ROWS][COLUMNS], comes_last[ROWS][COLUMNS];
  logic [7:0] comes_wave[ROWS][COLUMNS];
  logic signed [WIDTH-1:0] from_top[COLUMNS];
  logic signed [SUM-1:0] comes_down[ROWS][COLUMNS];
  logic signed [SUM-1:0] made[ROWS][COLUMNS];

  wire running = busy && loading == 0;
  wire over = running && comes_last[ROWS-1][COLUMNS-1];
  assign issue = busy;

  // The edges: row i is one cycle behind row i - 1.
  always_comb begin
    for (int i = 0; i < ROWS; i++) begin
      enters_is[i] = running && began[i] && front[i] < streams;
      enters_last[i] = enters_is[i] && front[i] == streams - 1;
      enters[i] = 0;
      if (enters_is[i] && row_block + 8'(i) < on_rows) begin
        if (WEIGHTS_STAY != 0) enters[i] = left[front[i][4:0]][5'(row_block + 8'(i))];
        else enters[i] = left[5'(row_block + 8'(i))][front[i][4:0]];
      end
    end
    for (int j = 0; j < COLUMNS; j++) begin
      from_top[j] = 0;
      if (column_block + 8'(j) < on_columns) begin
        if (WEIGHTS_STAY != 0) begin
          if (loading != 0 && row_block + loading - 1 < on_rows)
            from_top[j] = right[5'(row_block+loading-1)][5'(column_block+8'(j))];
        end else if (running && top_began[j] && top_front[j] < streams) begin
          from_top[j] = right[top_front[j][4:0]][5'(column_block+8'(j))];
        end
      end
    end
  end

  // The PEs.
  always_comb begin
    for (int i = 0; i < ROWS; i++) begin
      for (int j = 0; j < COLUMNS; j++) begin
        comes[i][j] = j == 0 ? enters[i] : across[i][j-1];
        comes_is[i][j] = j == 0 ? enters_is[i] : across_is[i][j-1];
        comes_last[i][j] = j == 0 ? enters_last[i] : across_last[i][j-1];
        comes_wave[i][j] = j == 0 ? front[i] : across_wave[i][j-1];
        if (WEIGHTS_STAY != 0) begin
          comes_down[i][j] = i == 0 ? 0 : down[i-1][j];
          made[i][j] = comes_down[i][j] + comes[i][j] * held[i][j];
        end else begin
          comes_down[i][j] = i == 0 ? SUM'(from_top[j]) : down[i-1][j];
          made[i][j] = sums[i][j] + (comes_is[i][j] ? comes[i][j] * comes_down[i][j] : 0);
        end
      end
    end
  end

  always_ff @(posedge clk) begin
    for (int i = 0; i < ROWS; i++) begin
      for (int j = 0; j < COLUMNS; j++) begin
        across[i][j] <= comes[i][j];
        across_is[i][j] <= comes_is[i][j] && !over;
        across_last[i][j] <= comes_last[i][j] && !over;
        across_wave[i][j] <= comes_wave[i][j];
        down[i][j] <= WEIGHTS_STAY != 0 ? made[i][j] : comes_down[i][j];
        sums[i][j] <= over || !busy ? 0 : made[i][j];
        if (loading != 0) held[i][j] <= i == 0 ? from_top[j] : held[i-1][j];
      end
    end
    for (int i = 0; i < ROWS; i++) front[i] <= over || !running ? 0 : front[i] + 8'(began[i]);
    for (int i = 1; i < ROWS; i++) began[i] <= running && !over && began[i-1];
    for (int j = 0; j < COLUMNS; j++)
      top_front[j] <= over || !running ? 0 : top_front[j] + 8'(top_began[j]);
    for (int j = 1; j < COLUMNS; j++) top_began[j] <= running && !over && top_began[j-1];
    began[0] <= start || busy;  // row 0 and column 0 are ready when a fold begins
    top_began[0] <= start || busy;
    if (loading != 0) loading <= loading - 1;
    if (WEIGHTS_STAY != 0) begin
      for (int j = 0; j < COLUMNS; j++) begin
        if (busy && comes_is[ROWS-1][j] && column_block + 8'(j) < on_columns)
          results[comes_wave[ROWS-1][j][4:0]][5'(column_block+8'(j))]
              <= made[ROWS-1][j] + (row_block == 0 ? 0
                  : results[comes_wave[ROWS-1][j][4:0]][5'(column_block+8'(j))]);
      end
    end else if (over) begin
      for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++)
          if (row_block + 8'(i) < on_rows && column_block + 8'(j) < on_columns)
            results[5'(row_block+8'(i))][5'(column_block+8'(j))] <= made[i][j];
    end
    if (over) begin
      if (WEIGHTS_STAY != 0) loading <= ROWS;
      row_block <= row_block + ROWS;
      if (row_block + ROWS >= on_rows) begin
        row_block <= 0;
        column_block <= column_block + COLUMNS;
        if (column_block + COLUMNS >= on_columns) begin
          busy <= 0;
          loading <= 0;
        end
      end
    end
    if (start) begin
      busy <= 1;
      row_block <= 0;
      column_block <= 0;
      loading <= WEIGHTS_STAY != 0 ? ROWS : 0;
    end
    if (reset) begin
      busy <= 0;
      loading <= 0;
    end
  end
endmodule
