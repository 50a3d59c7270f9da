// ROWS rows of a tile in lockstep, of 16 lanes each, with TensorDash's scheduler:
// swatsim/simulator/machines/lane_array/README.md, "The window scheduler", `levels`.
//
// A staging buffer holds three lines of each row's scheduled operand, and of the one that follows
// (one column). In each cycle every lane takes its own value, or through an 8-to-1 multiplexer that
// of another slot; lanes choose in six levels, those of one level side by side. What is left of
// lines that are then empty in all rows is dropped, two at most, and the buffer moves on by 1 to 3.
//
// Lines are written in first; `start` fills the buffer, and `issue` is high in the cycles in which
// lanes multiply. `sums` are the rows' when `busy` is low.
module row_group #(
    parameter ROWS = 4,
    parameter WIDTH = 8,
    parameter SUM = 32,
    parameter DEPTH = 64  // lines, a power of two
) (
    input logic clk,
    input logic reset,
    input logic write,
    input logic [7:0] address,
    input logic [ROWS*16*WIDTH-1:0] scheduled,
    input logic [16*WIDTH-1:0] following,
    input logic [7:0] lines,
    input logic start,
    output logic busy,
    output logic issue,
    output logic [ROWS*SUM-1:0] sums
);
  localparam LANES = 16;
  localparam WINDOW = 3;
  // Of a lane's choices, its own value the lowest: how many lines ahead, how many lanes to the side.
  localparam [15:0] AHEAD = {2'd1, 2'd2, 2'd2, 2'd1, 2'd1, 2'd2, 2'd1, 2'd0};
  localparam [31:0] SIDE = {4'd13, 4'd2, 4'd14, 4'd1, 4'd15, 4'd0, 4'd0, 4'd0};
  logic [ROWS*LANES*WIDTH-1:0] memory[DEPTH];
  logic [LANES*WIDTH-1:0] following_memory[DEPTH];
  always_ff @(posedge clk) begin
    if (write) begin
      memory[address[5:0]] <= scheduled;
      following_memory[address[5:0]] <= following;
    end
  end

  // The staging buffer: line 0 is the head; `left` marks values that no lane has taken.
  logic [ROWS*LANES*WIDTH-1:0] staged[WINDOW];
  logic [LANES*WIDTH-1:0] beside[WINDOW];
  logic [ROWS*LANES-1:0] left[WINDOW];
  logic [7:0] head;  // number of the line at the head
  logic filled;  // the buffer holds lines; before that it moves on without a cycle's work
  assign issue = busy && filled;

  logic signed [SUM-1:0] accumulators[ROWS];
  always_comb for (int r = 0; r < ROWS; r++) sums[r*SUM+:SUM] = accumulators[r];

  // Who takes what: a bit for a lane's own value, then one for each other slot that it may look into,
  // in the order in which it does. Slots of the next line, and of the one after it, are as they are
  // left by the levels before.
  logic [7:0] takes[ROWS][LANES];
  logic [7:0] offers;
  logic [LANES-1:0] next, second;
  logic [ROWS*LANES-1:0] next_rest, second_rest;
  always_comb begin
    offers = 0;
    next_rest = 0;
    second_rest = 0;
    for (int r = 0; r < ROWS; r++) for (int lane = 0; lane < LANES; lane++) takes[r][lane] = 0;
    for (int r = 0; r < ROWS; r++) begin
      next = left[1][r*LANES+:LANES];
      second = left[2][r*LANES+:LANES];
      for (int level = 0; level < 6; level++) begin
        for (int lane = 0; lane < LANES; lane++) begin
          if ((lane == 15 ? 5 : lane % 5) == level) begin
            offers = {
              next[(lane+13)%LANES],
              second[(lane+2)%LANES],
              second[(lane+14)%LANES],
              next[(lane+1)%LANES],
              next[(lane+15)%LANES],
              second[lane],
              next[lane],
              left[0][r*LANES+lane]
            };
            if (!filled) offers = 0;
            offers = offers & -offers;  // the first one
            takes[r][lane] = offers;
            next[lane] = next[lane] && !offers[1];
            second[lane] = second[lane] && !offers[2];
            next[(lane+15)%LANES] = next[(lane+15)%LANES] && !offers[3];
            next[(lane+1)%LANES] = next[(lane+1)%LANES] && !offers[4];
            second[(lane+14)%LANES] = second[(lane+14)%LANES] && !offers[5];
            second[(lane+2)%LANES] = second[(lane+2)%LANES] && !offers[6];
            next[(lane+13)%LANES] = next[(lane+13)%LANES] && !offers[7];
          end
        end
      end
      next_rest[r*LANES+:LANES] = next;
      second_rest[r*LANES+:LANES] = second;
    end
  end

  // The multiplexers, of both operands alike, and the sums.
  logic signed [WIDTH-1:0] one, other;
  logic signed [SUM-1:0] added[ROWS];
  always_comb begin
    for (int r = 0; r < ROWS; r++) begin
      added[r] = accumulators[r];
      for (int lane = 0; lane < LANES; lane++) begin
        one = 0;
        other = 0;
        for (int i = 0; i < 8; i++) begin
          if (takes[r][lane][i]) begin
            one = one | staged[AHEAD[i*2+:2]][(r*LANES+(lane+SIDE[i*4+:4])%LANES)*WIDTH+:WIDTH];
            other = other | beside[AHEAD[i*2+:2]][((lane+SIDE[i*4+:4])%LANES)*WIDTH+:WIDTH];
          end
        end
        added[r] = added[r] + one * other;
      end
    end
  end

  // How far the buffer moves: over the head, and over lines after it in which nothing is left.
  logic [1:0] moves;
  always_comb begin
    moves = 1;
    if (next_rest == 0) moves = second_rest == 0 ? 3 : 2;
  end

  function automatic logic [ROWS*LANES-1:0] marks(input logic [ROWS*LANES*WIDTH-1:0] values);
    for (int i = 0; i < ROWS * LANES; i++) marks[i] = values[i*WIDTH+:WIDTH] != 0;
  endfunction

  logic [7:0] line[WINDOW];  // what the buffer holds next
  always_comb for (int t = 0; t < WINDOW; t++) line[t] = head + 8'(moves) + 8'(t);

  always_ff @(posedge clk) begin
    if (start) begin
      // Before line 0 lies a line with nothing in it, which the first move leaves behind.
      busy <= lines != 0;
      filled <= 0;
      head <= -1;
      for (int t = 0; t < WINDOW; t++) begin
        staged[t] <= t == 0 ? 0 : memory[6'(t-1)];
        beside[t] <= t == 0 ? 0 : following_memory[6'(t-1)];
        left[t] <= t == 0 || 8'(t - 1) >= lines ? 0 : marks(memory[6'(t-1)]);
      end
      for (int r = 0; r < ROWS; r++) accumulators[r] <= 0;
    end else if (busy) begin
      filled <= 1;
      head <= line[0];
      busy <= line[0] < lines;
      if (filled) for (int r = 0; r < ROWS; r++) accumulators[r] <= added[r];
      for (int t = 0; t < WINDOW; t++) begin
        if (32'(moves) + t < WINDOW) begin
          staged[t] <= staged[32'(moves)+t];
          beside[t] <= beside[32'(moves)+t];
          left[t] <= 32'(moves) + t == 1 ? next_rest : second_rest;
        end else begin
          staged[t] <= memory[line[t][5:0]];
          beside[t] <= following_memory[line[t][5:0]];
          left[t] <= line[t] < lines ? marks(memory[line[t][5:0]]) : 0;
        end
      end
    end
    if (reset) busy <= 0;
  end
endmodule
