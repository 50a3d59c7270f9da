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
  localparam LINE = LANES * WIDTH;
  // Of a lane's choices, its own value the lowest: how many lines ahead, how many lanes to the side.
  localparam [15:0] AHEAD = {2'd1, 2'd2, 2'd2, 2'd1, 2'd1, 2'd2, 2'd1, 2'd0};
  localparam [31:0] SIDE = {4'd13, 4'd2, 4'd14, 4'd1, 4'd15, 4'd0, 4'd0, 4'd0};
  logic [ROWS*LINE-1:0] memory[DEPTH];
  logic [LINE-1:0] following_memory[DEPTH];
  always_ff @(posedge clk) begin
    if (write) begin
      memory[address[5:0]] <= scheduled;
      following_memory[address[5:0]] <= following;
    end
  end

  // How far the buffer moves: over the head, and over lines after it in which nothing is left, in
  // any row. At the start it moves by all three lines, onto a line before line 0 with nothing in it.
  logic [ROWS-1:0] next_empty, second_empty;
  logic [1:0] moves;
  always_comb begin
    moves = 1;
    if (&next_empty) moves = &second_empty ? 3 : 2;
    if (start) moves = 3;
  end

  logic [7:0] head;  // number of the line at the head
  logic filled;  // the buffer holds lines; before that it moves on without a cycle's work
  assign issue = busy && filled;
  logic [7:0] line[WINDOW];  // what the buffer holds next
  logic [WINDOW-1:0] is_line;
  logic [WINDOW*LINE-1:0] following_lines;
  always_comb begin
    for (int t = 0; t < WINDOW; t++) begin
      line[t] = start ? 8'(t - 1) : head + 8'(moves) + 8'(t);
      is_line[t] = line[t] < lines;
      following_lines[t*LINE+:LINE] = following_memory[line[t][5:0]];
    end
  end

  logic [WINDOW*LINE-1:0] beside;
  staging #(.BITS(LINE)) column (
      .clk, .load(start || busy), .moves, .lines(following_lines), .staged(beside)
  );

  logic signed [WIDTH-1:0] one[ROWS][LANES], other[ROWS][LANES];
  for (genvar r = 0; r < ROWS; r++) begin : row
    logic [WINDOW*LINE-1:0] row_lines, staged;
    for (genvar t = 0; t < WINDOW; t++) begin : of
      assign row_lines[t*LINE+:LINE] = memory[line[t][5:0]][r*LINE+:LINE];
    end
    staging #(.BITS(LINE)) values (
        .clk, .load(start || busy), .moves, .lines(row_lines), .staged
    );
    logic [LANES*8-1:0] takes;
    scheduler #(.WIDTH(WIDTH)) levels (
        .clk, .load(start || busy), .moves, .lines(row_lines), .is_line, .works(filled), .takes,
        .next_empty(next_empty[r]), .second_empty(second_empty[r])
    );
    for (genvar lane = 0; lane < LANES; lane++) begin : at
      logic [8*WIDTH-1:0] seen, seen_beside;
      for (genvar i = 0; i < 8; i++) begin : slot
        localparam PLACE = AHEAD[i*2+:2] * LINE + (lane + SIDE[i*4+:4]) % LANES * WIDTH;
        assign seen[i*WIDTH+:WIDTH] = staged[PLACE+:WIDTH];
        assign seen_beside[i*WIDTH+:WIDTH] = beside[PLACE+:WIDTH];
      end
      multiplexer #(.WIDTH(WIDTH)) own (
          .values(seen), .takes(takes[lane*8+:8]), .value(one[r][lane])
      );
      multiplexer #(.WIDTH(WIDTH)) opposite (
          .values(seen_beside), .takes(takes[lane*8+:8]), .value(other[r][lane])
      );
    end
  end

  logic signed [SUM-1:0] accumulators[ROWS], added[ROWS];
  always_comb begin
    for (int r = 0; r < ROWS; r++) begin
      sums[r*SUM+:SUM] = accumulators[r];
      added[r] = accumulators[r];
      for (int lane = 0; lane < LANES; lane++) added[r] = added[r] + one[r][lane] * other[r][lane];
    end
  end

  always_ff @(posedge clk) begin
    if (start) begin
      busy <= lines != 0;
      filled <= 0;
      head <= -1;
      for (int r = 0; r < ROWS; r++) accumulators[r] <= 0;
    end else if (busy) begin
      filled <= 1;
      head <= line[0];
      busy <= is_line[0];
      if (filled) for (int r = 0; r < ROWS; r++) accumulators[r] <= added[r];
    end
    if (reset) busy <= 0;
  end
endmodule

// Who takes what in a row: a bit for a lane's own value, then one for each other slot that it may
// look into, in the order in which it does. Slots of the next line, and of the one after it, are as
// they are left by the levels before; `left` marks what no lane has taken.
module scheduler #(
    parameter WIDTH = 8
) (
    input logic clk,
    input logic load,
    input logic [1:0] moves,
    input logic [3*16*WIDTH-1:0] lines,
    input logic [2:0] is_line,
    input logic works,
    output logic [16*8-1:0] takes,
    output logic next_empty,
    output logic second_empty
);
  localparam LANES = 16;
  logic [LANES-1:0] left[3];
  logic [LANES-1:0] next, second;
  logic [7:0] offers;
  always_comb begin
    offers = 0;
    takes = 0;
    next = left[1];
    second = left[2];
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
            left[0][lane]
          };
          if (!works) offers = 0;
          offers = offers & -offers;  // the first one
          takes[lane*8+:8] = offers;
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
  end
  assign next_empty = next == 0;
  assign second_empty = second == 0;

  logic [3*LANES-1:0] marks, held;
  always_comb begin
    for (int i = 0; i < 3 * LANES; i++)
      marks[i] = is_line[i/LANES] && lines[i*WIDTH+:WIDTH] != 0;
    for (int t = 0; t < 3; t++) left[t] = held[t*LANES+:LANES];
  end
  always_ff @(posedge clk) begin
    if (load) begin
      for (int t = 0; t < 3; t++) begin
        if (32'(moves) + t == 1) held[t*LANES+:LANES] <= next;
        else if (32'(moves) + t == 2) held[t*LANES+:LANES] <= second;
        else held[t*LANES+:LANES] <= marks[t*LANES+:LANES];
      end
    end
  end
endmodule

// Three lines, of which the buffer keeps those that it does not leave behind.
module staging #(
    parameter BITS = 128
) (
    input logic clk,
    input logic load,
    input logic [1:0] moves,
    input logic [3*BITS-1:0] lines,
    output logic [3*BITS-1:0] staged
);
  always_ff @(posedge clk) begin
    if (load) begin
      staged[0+:BITS] <= moves == 1 ? staged[BITS+:BITS]
          : moves == 2 ? staged[2*BITS+:BITS] : lines[0+:BITS];
      staged[BITS+:BITS] <= moves == 1 ? staged[2*BITS+:BITS] : lines[BITS+:BITS];
      staged[2*BITS+:BITS] <= lines[2*BITS+:BITS];
    end
  end
endmodule

// One of eight values; none if no bit is set.
module multiplexer #(
    parameter WIDTH = 8
) (
    input logic [8*WIDTH-1:0] values,
    input logic [7:0] takes,
    output logic [WIDTH-1:0] value
);
  always_comb begin
    value = 0;
    for (int i = 0; i < 8; i++) if (takes[i]) value = value | values[i*WIDTH+:WIDTH];
  end
endmodule
