// Trigger @TRIGGER@, program @HASH@: @LATENCY@ from the inputs to the score, a new crossing each clock.
// inputs: the network inputs in hardware codes, packed as ports.json lists them. outputs: the score, LSB 1/16.
// decisions: one bit a threshold, in the order of ports.json.
`timescale 1ns / 1ps

module @TOP@ (
@CLOCK@    input wire [@INPUT_BITS@-1:0] inputs,
    output wire [@OUTPUT_BITS@-1:0] outputs@DECISIONS@
);

  @CORE@ core (
@CONNECT@      .model_inp(inputs),
      .model_out(outputs)
  );
@COMPARE@
endmodule
