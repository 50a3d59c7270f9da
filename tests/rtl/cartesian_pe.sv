// A PE of a Cartesian-product machine, 4 x 4 multipliers before 32 banks of accumulators:
// swatsim/simulator/machines/cartesian/README.md, "fprop", steps 4 and "bank_queue".
//
// Pixels and weights that are not zero are written in as queues, each value with its coordinates:
// one queue of either for each segment, which is a channel and a stride phase. `start` multiplies
// each segment's pixels with its weights, a block of 4 of either in a cycle, blocks of weights
// innermost; a segment without a pixel or without a weight takes no cycle. Each product's
// output coordinates, whether they lie in the plane, and its bank are computed here.
//
// QUEUE = 0: a pair of blocks holds the multipliers until each bank has taken its products, one a
// cycle. QUEUE = d: products wait in queues of d before the banks, from which one leaves in each
// cycle; a pair waits until there is room for all its products. At the end the queues drain.
//
// `issue` is high from the first pair to the last product that a bank takes, but for nothing.
module cartesian_pe #(
    parameter QUEUE = 0,
    parameter STRIDE = 1,
    parameter DILATION = 1,
    parameter WIDTH = 8,
    parameter SUM = 32,
    parameter DEPTH = 1024,  // values of either side, of all segments
    parameter SEGMENTS = 64,
    parameter OUTPUTS = 4096
) (
    input logic clk,
    input logic reset,
    input logic write_pixel,
    input logic write_weight,
    input logic write_segment,
    input logic clear,  // before another layer: sums and segments
    input logic [15:0] address,
    input logic signed [WIDTH-1:0] value,
    input logic [7:0] x,  // of a weight r
    input logic [7:0] y,  // of a weight s
    input logic [7:0] filter,
    input logic [15:0] pixels_at,  // of a segment: where its queues begin, and how long they are
    input logic [15:0] pixels,
    input logic [15:0] weights_at,
    input logic [15:0] weights,
    input logic [7:0] outputs_w,
    input logic [7:0] outputs_h,
    input logic start,
    output logic busy,
    output logic issue,
    output logic signed [SUM-1:0] result
);
  localparam BANKS = 32;
  localparam PRODUCTS = 16;
  localparam ROOM = QUEUE > PRODUCTS ? QUEUE : PRODUCTS;

  logic signed [WIDTH-1:0] pixel[DEPTH], weight[DEPTH];
  logic [7:0] pixel_x[DEPTH], pixel_y[DEPTH], weight_r[DEPTH], weight_s[DEPTH], weight_k[DEPTH];
  logic [15:0] pixel_at[SEGMENTS], pixel_count[SEGMENTS], weight_at[SEGMENTS], weight_count[SEGMENTS];
  logic [SEGMENTS-1:0] has_work;  // segments with something on both sides
  logic signed [SUM-1:0] sums[OUTPUTS];
  assign result = sums[address[11:0]];

  always_ff @(posedge clk) begin
    if (write_pixel) begin
      pixel[address[9:0]] <= value;
      pixel_x[address[9:0]] <= x;
      pixel_y[address[9:0]] <= y;
    end
    if (write_weight) begin
      weight[address[9:0]] <= value;
      weight_r[address[9:0]] <= x;
      weight_s[address[9:0]] <= y;
      weight_k[address[9:0]] <= filter;
    end
    if (write_segment) begin
      pixel_at[address[5:0]] <= pixels_at;
      pixel_count[address[5:0]] <= pixels;
      weight_at[address[5:0]] <= weights_at;
      weight_count[address[5:0]] <= weights;
      has_work[address[5:0]] <= pixels != 0 && weights != 0;
    end
    if (reset || clear) has_work <= 0;
  end

  // The pair of blocks at hand, and the next one.
  logic [5:0] segment, first_segment, next_segment;
  logic [15:0] pixel_block, weight_block;
  logic some, more, pair;  // a segment with work; another one after this; a pair is at hand
  always_comb begin
    some = 0;
    more = 0;
    first_segment = 0;
    next_segment = 0;
    for (int i = SEGMENTS - 1; i >= 0; i--) begin
      if (has_work[i]) begin
        some = 1;
        first_segment = 6'(i);
        if (i > 32'(segment)) begin
          more = 1;
          next_segment = 6'(i);
        end
      end
    end
  end
  wire last_weights = weight_block + 4 >= weight_count[segment];
  wire last_pixels = pixel_block + 4 >= pixel_count[segment];

  // The products: coordinates, whether they are of the plane, banks.
  logic valid[PRODUCTS];
  logic [4:0] bank[PRODUCTS];
  logic [11:0] output_at[PRODUCTS];
  logic signed [SUM-1:0] product[PRODUCTS];
  logic [15:0] p, q;
  logic signed [15:0] across, along;
  logic [15:0] w, h, k;
  always_comb begin
    for (int i = 0; i < PRODUCTS; i++) begin
      p = pixel_at[segment] + pixel_block + 16'(i / 4);
      q = weight_at[segment] + weight_block + 16'(i % 4);
      across = $signed({8'b0, pixel_x[p[9:0]]}) - $signed({8'b0, weight_r[q[9:0]]}) * DILATION;
      along = $signed({8'b0, pixel_y[p[9:0]]}) - $signed({8'b0, weight_s[q[9:0]]}) * DILATION;
      w = 16'(across / STRIDE);
      h = 16'(along / STRIDE);
      k = {8'b0, weight_k[q[9:0]]};
      valid[i] = pixel_block + 16'(i / 4) < pixel_count[segment]
          && weight_block + 16'(i % 4) < weight_count[segment]
          && across >= 0 && along >= 0 && w < {8'b0, outputs_w} && h < {8'b0, outputs_h};
      bank[i] = 5'(((4 * (k & 4)) ^ (8 * (w & 2)) ^ (8 * (h & 2))) + 8 * (w & 1) + 4 * (h & 1) + (k & 3));
      output_at[i] = 12'((k * outputs_w + w) * outputs_h + h);
      product[i] = pixel[p[9:0]] * weight[q[9:0]];
    end
  end

  // Banks: each takes one product in a cycle, from the pair that holds the multipliers or from its
  // queue.
  logic [PRODUCTS-1:0] waiting;  // QUEUE = 0: products of the pair that no bank has taken
  logic [PRODUCTS-1:0] rest;
  logic [5:0] length[BANKS], after[BANKS], falling[BANKS];
  logic [11:0] queued_at[BANKS][ROOM];
  logic signed [SUM-1:0] queued[BANKS][ROOM];
  logic held;  // QUEUE = 0: the pair was at hand in the cycle before
  logic room, left;
  logic goes;  // the pair is issued and leaves
  logic takes[BANKS];
  logic [11:0] taken_at[BANKS];
  logic signed [SUM-1:0] taken[BANKS];

  always_comb begin
    room = 1;
    left = 0;
    for (int i = 0; i < PRODUCTS; i++) rest[i] = held ? waiting[i] : valid[i];
    for (int b = 0; b < BANKS; b++) begin
      takes[b] = 0;
      taken_at[b] = queued_at[b][0];
      taken[b] = queued[b][0];
      falling[b] = 0;
      after[b] = length[b];
      if (QUEUE != 0) begin
        if (length[b] != 0) begin
          takes[b] = 1;
          after[b] = length[b] - 1;
        end
        for (int i = 0; i < PRODUCTS; i++)
          if (pair && valid[i] && bank[i] == 5'(b)) falling[b] = falling[b] + 1;
        if (falling[b] != 0 && after[b] != 0 && 32'(falling[b]) + 32'(after[b]) > QUEUE) room = 0;
        if (after[b] != 0) left = 1;
      end else begin
        for (int i = 0; i < PRODUCTS; i++) begin
          if (pair && !takes[b] && rest[i] && bank[i] == 5'(b)) begin
            takes[b] = 1;
            taken_at[b] = output_at[i];
            taken[b] = product[i];
            rest[i] = 0;
          end
        end
      end
    end
    goes = pair && (QUEUE != 0 ? room : rest == 0);
    if (QUEUE != 0 && goes)
      for (int b = 0; b < BANKS; b++) if (falling[b] != 0) left = 1;
  end
  assign issue = busy;

  always_ff @(posedge clk) begin
    for (int b = 0; b < BANKS; b++)
      if (busy && takes[b]) sums[taken_at[b]] <= sums[taken_at[b]] + taken[b];
    if (busy) begin
      held <= pair && !goes;
      waiting <= rest;
      if (QUEUE != 0) begin
        for (int b = 0; b < BANKS; b++) begin : queue
          int at;
          at = 32'(after[b]);
          if (takes[b]) begin
            for (int e = 0; e < ROOM - 1; e++) begin
              queued[b][e] <= queued[b][e+1];
              queued_at[b][e] <= queued_at[b][e+1];
            end
          end
          for (int i = 0; i < PRODUCTS; i++) begin
            if (goes && valid[i] && bank[i] == 5'(b)) begin
              queued[b][at] <= product[i];
              queued_at[b][at] <= output_at[i];
              at = at + 1;
            end
          end
          length[b] <= 6'(at);
        end
      end
      if (goes) begin
        weight_block <= weight_block + 4;
        if (last_weights) begin
          weight_block <= 0;
          pixel_block <= pixel_block + 4;
          if (last_pixels) begin
            pixel_block <= 0;
            segment <= next_segment;
            pair <= more;
          end
        end
      end
      busy <= pair && !(goes && last_weights && last_pixels && !more) || left;
    end
    if (start) begin
      busy <= some;
      pair <= some;
      held <= 0;
      segment <= first_segment;
      pixel_block <= 0;
      weight_block <= 0;
      for (int b = 0; b < BANKS; b++) length[b] <= 0;
    end
    if (clear) for (int i = 0; i < OUTPUTS; i++) sums[i] <= 0;
    if (reset) busy <= 0;
  end
endmodule
