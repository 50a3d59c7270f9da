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

  // Of the blocks at hand: values, and what of their outputs' places each side knows by itself.
  localparam BLOCK = 4;
  logic signed [WIDTH-1:0] act[BLOCK], by[BLOCK];
  logic [BLOCK-1:0] is_pixel, is_weight;
  logic [BLOCK*8-1:0] w, h, back_w, back_h, k;
  logic [BLOCK*12-1:0] from, less;
  wire [11:0] plane = outputs_w * outputs_h;
  for (genvar i = 0; i < BLOCK; i++) begin : entry
    wire [9:0] pixel_entry = 10'(pixel_at[segment] + pixel_block + 16'(i));
    wire [9:0] weight_entry = 10'(weight_at[segment] + weight_block + 16'(i));
    assign is_pixel[i] = pixel_block + 16'(i) < pixel_count[segment];
    assign is_weight[i] = weight_block + 16'(i) < weight_count[segment];
    assign act[i] = pixel[pixel_entry];
    assign by[i] = weight[weight_entry];
    assign k[i*8+:8] = weight_k[weight_entry];
    pixel_place #(.STRIDE(STRIDE)) of_pixel (
        .x(pixel_x[pixel_entry]), .y(pixel_y[pixel_entry]), .outputs_h,
        .w(w[i*8+:8]), .h(h[i*8+:8]), .from(from[i*12+:12])
    );
    weight_place #(.STRIDE(STRIDE), .DILATION(DILATION)) of_weight (
        .r(weight_r[weight_entry]), .s(weight_s[weight_entry]), .k(k[i*8+:8]), .outputs_h, .plane,
        .back_w(back_w[i*8+:8]), .back_h(back_h[i*8+:8]), .less(less[i*12+:12])
    );
  end

  // The products: places, whether they are of the plane, banks.
  localparam BITS = 12 + SUM;
  logic [PRODUCTS-1:0] valid;
  logic [BANKS-1:0] banks[PRODUCTS];
  logic [PRODUCTS*BITS-1:0] products;  // each with its place
  for (genvar i = 0; i < PRODUCTS; i++) begin : product
    localparam P = i / BLOCK;
    localparam Q = i % BLOCK;
    logic in_plane;
    product_place of_product (
        .w(w[P*8+:8]), .h(h[P*8+:8]), .back_w(back_w[Q*8+:8]), .back_h(back_h[Q*8+:8]),
        .k(k[Q*8+:8]), .from(from[P*12+:12]), .less(less[Q*12+:12]), .outputs_w, .outputs_h,
        .in_plane, .banks(banks[i]), .place(products[i*BITS+SUM+:12])
    );
    assign valid[i] = is_pixel[P] && is_weight[Q] && in_plane;
    wire signed [SUM-1:0] made = act[P] * by[Q];
    assign products[i*BITS+:SUM] = made;
  end

  // Banks: each takes one product in a cycle, from the pair that holds the multipliers or from its
  // queue.
  logic [PRODUCTS-1:0] waiting;  // QUEUE = 0: products of the pair that no bank has taken
  logic held;  // QUEUE = 0: the pair was at hand in the cycle before
  logic [PRODUCTS-1:0] rest, taken_now;
  logic [BANKS-1:0] takes, room, left;
  logic [PRODUCTS-1:0] granted[BANKS];
  logic [BITS-1:0] taken[BANKS];
  logic goes;  // the pair is issued and leaves
  assign rest = QUEUE == 0 && held ? waiting : valid;
  for (genvar b = 0; b < BANKS; b++) begin : bank
    logic [PRODUCTS-1:0] requests;
    for (genvar i = 0; i < PRODUCTS; i++)
      assign requests[i] = pair && rest[i] && banks[i][b];
    if (QUEUE == 0) begin : direct
      arbiter first (.requests, .granted(granted[b]));
      crossbar #(.BITS(BITS)) way (.products, .granted(granted[b]), .product(taken[b]));
      assign takes[b] = requests != 0;
      assign room[b] = 1;
      assign left[b] = 0;
    end else begin : queued
      bank_queue #(.QUEUE(QUEUE), .BITS(BITS)) waits (
          .clk, .start, .works(busy), .goes, .requests, .products,
          .takes(takes[b]), .head(taken[b]), .room(room[b]), .left(left[b])
      );
      assign granted[b] = 0;
    end
  end
  always_comb begin
    taken_now = 0;
    for (int b = 0; b < BANKS; b++) taken_now = taken_now | granted[b];
    goes = pair && (QUEUE != 0 ? &room : (rest & ~taken_now) == 0);
  end
  assign issue = busy;

  always_ff @(posedge clk) begin
    for (int b = 0; b < BANKS; b++)
      if (busy && takes[b])
        sums[taken[b][SUM+:12]] <= sums[taken[b][SUM+:12]] + taken[b][SUM-1:0];
    if (busy) begin
      held <= pair && !goes;
      waiting <= rest & ~taken_now;
      if (goes) begin
        weight_block <= weight_block + BLOCK;
        if (last_weights) begin
          weight_block <= 0;
          pixel_block <= pixel_block + BLOCK;
          if (last_pixels) begin
            pixel_block <= 0;
            segment <= next_segment;
            pair <= more;
          end
        end
      end
      busy <= pair && !(goes && last_weights && last_pixels && !more) || left != 0;
    end
    if (start) begin
      busy <= some;
      pair <= some;
      held <= 0;
      segment <= first_segment;
      pixel_block <= 0;
      weight_block <= 0;
    end
    if (clear) for (int i = 0; i < OUTPUTS; i++) sums[i] <= 0;
    if (reset) busy <= 0;
  end
endmodule

// What a pixel knows of its outputs: their place is w - back_w, h - back_h, at `from` + `less`.
module pixel_place #(
    parameter STRIDE = 1
) (
    input logic [7:0] x,
    input logic [7:0] y,
    input logic [7:0] outputs_h,
    output logic [7:0] w,
    output logic [7:0] h,
    output logic [11:0] from
);
  assign w = x / STRIDE;
  assign h = y / STRIDE;
  assign from = 12'(w * outputs_h + h);
endmodule

// What a weight knows of them. What meets is of one stride phase: both quotients lack the same.
module weight_place #(
    parameter STRIDE = 1,
    parameter DILATION = 1
) (
    input logic [7:0] r,
    input logic [7:0] s,
    input logic [7:0] k,
    input logic [7:0] outputs_h,
    input logic [11:0] plane,
    output logic [7:0] back_w,
    output logic [7:0] back_h,
    output logic [11:0] less
);
  assign back_w = 8'(16'(r) * DILATION / STRIDE);
  assign back_h = 8'(16'(s) * DILATION / STRIDE);
  assign less = 12'(k * plane - back_w * outputs_h - back_h);
endmodule

// A product's output: whether it lies in the plane, its bank (a bit for each), its place.
module product_place (
    input logic [7:0] w,
    input logic [7:0] h,
    input logic [7:0] back_w,
    input logic [7:0] back_h,
    input logic [7:0] k,
    input logic [11:0] from,
    input logic [11:0] less,
    input logic [7:0] outputs_w,
    input logic [7:0] outputs_h,
    output logic in_plane,
    output logic [31:0] banks,
    output logic [11:0] place
);
  wire [7:0] p = w - back_w;
  wire [7:0] q = h - back_h;
  wire [4:0] bank = 5'(((4 * (k & 4)) ^ (8 * (p & 2)) ^ (8 * (q & 2))) + 8 * (p & 1) + 4 * (q & 1) + (k & 3));
  assign in_plane = w >= back_w && h >= back_h && p < outputs_w && q < outputs_h;
  assign banks = 32'd1 << bank;
  assign place = from + less;
endmodule

// The first of a bank's requests.
module arbiter (
    input logic [15:0] requests,
    output logic [15:0] granted
);
  assign granted = requests & -requests;
endmodule

// The way of the product that is granted, to one bank.
module crossbar #(
    parameter BITS = 44
) (
    input logic [16*BITS-1:0] products,
    input logic [15:0] granted,
    output logic [BITS-1:0] product
);
  always_comb begin
    product = 0;
    for (int i = 0; i < 16; i++) if (granted[i]) product = product | products[i*BITS+:BITS];
  end
endmodule

// A queue before a bank, which up to 16 products enter at once; one leaves in each cycle.
module bank_queue #(
    parameter QUEUE = 8,
    parameter BITS = 44
) (
    input logic clk,
    input logic start,
    input logic works,
    input logic goes,
    input logic [15:0] requests,
    input logic [16*BITS-1:0] products,
    output logic takes,
    output logic [BITS-1:0] head,
    output logic room,
    output logic left
);
  localparam ROOM = QUEUE > 16 ? QUEUE : 16;
  logic [BITS-1:0] queued[ROOM], entering[ROOM];
  logic [6:0] length, after, falling;
  logic [6:0] at[16];  // where each product would stand
  assign head = queued[0];
  assign takes = length != 0;
  assign after = length - 7'(takes);
  always_comb begin
    falling = 0;
    for (int i = 0; i < 16; i++) begin
      at[i] = after + falling;
      falling = falling + 7'(requests[i]);
    end
    for (int e = 0; e < ROOM; e++) begin
      entering[e] = 0;
      for (int i = 0; i < 16; i++)
        if (requests[i] && at[i] == 7'(e)) entering[e] = entering[e] | products[i*BITS+:BITS];
    end
  end
  assign room = falling == 0 || after == 0 || 32'(falling) + 32'(after) <= QUEUE;
  assign left = after != 0 || goes && falling != 0;
  always_ff @(posedge clk) begin
    if (works) begin
      for (int e = 0; e < ROOM; e++) begin
        if (e < 32'(after)) begin
          if (takes && e + 1 < ROOM) queued[e] <= queued[e+1];
        end else if (goes) queued[e] <= entering[e];
      end
      length <= goes ? after + falling : after;
    end
    if (start) length <= 0;
  end
endmodule
