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
  localparam INPUTS = 7;  // of a multiplexer, beside the lane's own value

  // The i-th choice of a lane: from so many lines ahead, so many lanes to the side.
  function automatic logic [1:0] ahead(input int i);
    case (i)
      0: ahead = 1;
      1: ahead = 2;
      2: ahead = 1;
      3: ahead = 1;
      4: ahead = 2;
      5: ahead = 2;
      default: ahead = 1;
    endcase
  endfunction

  function automatic logic [3:0] from(input int lane, input int i);
    case (i)
      0: from = 4'(lane);
      1: from = 4'(lane);
      2: from = 4'(lane - 1);
      3: from = 4'(lane + 1);
      4: from = 4'(lane - 2);
      5: from = 4'(lane + 2);
      default: from = 4'(lane - 3);
    endcase
  endfunction

  function automatic int level(input int lane);
    level = lane == 15 ? 5 : lane % 5;
  endfunction

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

  // Who takes what.
  logic [ROWS*LANES-1:0] rest[WINDOW];
  logic signed [SUM-1:0] added[ROWS];
  logic taken;
  logic [1:0] dt;
  logic [3:0] source;
  logic signed [WIDTH-1:0] one, other;
  always_comb begin
    for (int t = 0; t < WINDOW; t++) rest[t] = left[t];
    taken = 0;
    dt = 0;
    source = 0;
    one = 0;
    other = 0;
    for (int r = 0; r < ROWS; r++) begin
      added[r] = accumulators[r];
      for (int step = 0; step < 6; step++) begin
        for (int lane = 0; lane < LANES; lane++) begin
          if (filled && level(lane) == step) begin
            taken = left[0][r*LANES+lane];
            dt = 0;
            source = 4'(lane);
            for (int i = 0; i < INPUTS; i++) begin
              if (!taken && rest[ahead(i)][r*LANES+32'(from(lane, i))]) begin
                taken = 1;
                dt = ahead(i);
                source = from(lane, i);
              end
            end
            if (taken) begin
              rest[dt][r*LANES+32'(source)] = 0;
              one = staged[dt][(r*LANES+32'(source))*WIDTH+:WIDTH];
              other = beside[dt][32'(source)*WIDTH+:WIDTH];
              added[r] = added[r] + one * other;
            end
          end
        end
      end
    end
  end

  // How far the buffer moves: over the head, and over lines after it in which nothing is left.
  logic [1:0] moves;
  always_comb begin
    moves = 1;
    if (rest[1] == 0) moves = rest[2] == 0 ? 3 : 2;
  end

  function automatic logic [ROWS*LANES-1:0] marks(input logic [ROWS*LANES*WIDTH-1:0] line);
    for (int i = 0; i < ROWS * LANES; i++) marks[i] = line[i*WIDTH+:WIDTH] != 0;
  endfunction

  logic [7:0] next[WINDOW];
  always_comb for (int t = 0; t < WINDOW; t++) next[t] = head + 8'(moves) + 8'(t);

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
      head <= next[0];
      busy <= next[0] < lines;
      if (filled) for (int r = 0; r < ROWS; r++) accumulators[r] <= added[r];
      for (int t = 0; t < WINDOW; t++) begin
        if (32'(moves) + t < WINDOW) begin
          staged[t] <= staged[32'(moves)+t];
          beside[t] <= beside[32'(moves)+t];
          left[t] <= rest[32'(moves)+t];
        end else begin
          staged[t] <= memory[next[t][5:0]];
          beside[t] <= following_memory[next[t][5:0]];
          left[t] <= next[t] < lines ? marks(memory[next[t][5:0]]) : 0;
        end
      end
    end
    if (reset) busy <= 0;
  end
endmodule
