// in0 + in1 * 2**SHIFT1 or in0 - in1 * 2**SHIFT1, BW_OUT bits of it from bit DROP_LSBS on.
// Takes the parameters of alkaid's adder of this name. One carry chain whatever the shift: bits of an operand below the
// other one are copied, and a subtraction never needs a second chain for its borrow.
`timescale 1ns / 1ps

module shift_adder #(
    parameter BW_INPUT0 = 32,
    parameter BW_INPUT1 = 32,
    parameter SIGNED0 = 0,
    parameter SIGNED1 = 0,
    parameter BW_OUT = 32,
    parameter DROP_LSBS = 0,
    parameter SHIFT1 = 0,
    parameter IS_SUB = 0
) (
    input [BW_INPUT0-1:0] in0,
    input [BW_INPUT1-1:0] in1,
    output [BW_OUT-1:0] out
);

  localparam W = BW_OUT + DROP_LSBS;
  localparam PAD0 = (SHIFT1 < 0) ? -SHIFT1 : 0;
  localparam PAD1 = (SHIFT1 > 0) ? SHIFT1 : 0;
  // Bits below the first one at which both operands count; a subtrahend counts from its lowest bit on.
  localparam LOW = (PAD1 > 0) ? PAD1 : (IS_SUB ? 0 : PAD0);
  localparam COPY = (LOW < W) ? LOW : W;

  // Operands that reach beyond the result are cut, the others extended.
  // verilator lint_off UNUSEDSIGNAL
  wire [W+BW_INPUT0+PAD0-1:0] long0 = {{W{SIGNED0 ? in0[BW_INPUT0-1] : 1'b0}}, in0, {PAD0{1'b0}}};
  wire [W+BW_INPUT1+PAD1-1:0] long1 = {{W{SIGNED1 ? in1[BW_INPUT1-1] : 1'b0}}, in1, {PAD1{1'b0}}};
  wire [W-1:0] sum;
  // verilator lint_on UNUSEDSIGNAL
  wire [W-1:0] a = long0[W-1:0];
  wire [W-1:0] b = long1[W-1:0];

  generate
    if (COPY > 0) begin : low_bits
      assign sum[COPY-1:0] = (PAD1 > 0) ? a[COPY-1:0] : b[COPY-1:0];
    end
    if (COPY < W && PAD0 == COPY && !SIGNED1 && BW_INPUT1 <= COPY && !IS_SUB) begin : side_by_side
      assign sum[W-1:COPY] = a[W-1:COPY];
    end else if (COPY < W) begin : high_bits
`ifdef L1AD_OPEN_SYNTHESIS
      // The first operand feeds the carry chain: said here, so that it stays the one without an inverter.
      wire [W-COPY-1:0] propagate, carry;
      \$alu #(
          .A_SIGNED(0), .B_SIGNED(0), .A_WIDTH(W - COPY), .B_WIDTH(W - COPY), .Y_WIDTH(W - COPY)
      ) adder (
          .A(a[W-1:COPY]), .B(b[W-1:COPY]), .BI(IS_SUB != 0), .CI(IS_SUB != 0), .Y(sum[W-1:COPY]), .X(propagate), .CO(carry)
      );
`else
      assign sum[W-1:COPY] = IS_SUB ? a[W-1:COPY] - b[W-1:COPY] : a[W-1:COPY] + b[W-1:COPY];
`endif
    end
  endgenerate

  assign out = sum[W-1:DROP_LSBS];

endmodule
