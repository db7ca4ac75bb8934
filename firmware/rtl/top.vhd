-- Trigger @TRIGGER@, program @HASH@: @LATENCY@ from the inputs to the score, a new crossing each clock.
-- inputs: the network inputs in hardware codes, packed as ports.json lists them. outputs: the score, LSB 1/16.
-- decisions: one bit a threshold, in the order of ports.json.
library ieee;
use ieee.std_logic_1164.all;
use ieee.numeric_std.all;

entity @TOP@ is
  port (
@CLOCK@    inputs : in std_logic_vector(@INPUT_BITS@-1 downto 0);
    outputs : out std_logic_vector(@OUTPUT_BITS@-1 downto 0)@DECISIONS@
  );
end entity;

architecture rtl of @TOP@ is
  signal score : std_logic_vector(@OUTPUT_BITS@-1 downto 0);
begin
  core : entity work.@CORE@
    port map (
@CONNECT@      model_inp => inputs,
      model_out => score
    );
  outputs <= score;
@COMPARE@
end architecture;
