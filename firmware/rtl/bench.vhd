-- Streams events through the top entity, one a clock: lines of bits in, lines of bits out.
library ieee;
use ieee.std_logic_1164.all;
use std.textio.all;

entity l1ad_bench is
  generic (codes : string; results : string);
end entity;

architecture simulation of l1ad_bench is
  signal clk : std_logic := '0';
  signal inputs : std_logic_vector(@INPUT_BITS@-1 downto 0) := (others => '0');
  signal outputs : std_logic_vector(@OUTPUT_BITS@-1 downto 0);
begin
  dut : entity work.@TOP@
    port map (@CONNECT@inputs => inputs, outputs => outputs@OPEN@);

  process
    constant latency : natural := @LATENCY@;
    file source : text open read_mode is codes;
    file target : text open write_mode is results;
    variable row : line;
    variable word : bit_vector(@INPUT_BITS@-1 downto 0);
    variable clocks : natural := 0;

    procedure tick is
      variable answer : line;
    begin
      wait for 1 ns;
      clk <= '1';
      wait for 1 ns;
      clocks := clocks + 1;
      if clocks >= latency then
        write(answer, to_bitvector(outputs));
        writeline(target, answer);
      end if;
      clk <= '0';
    end procedure;
  begin
    while not endfile(source) loop
      readline(source, row);
      read(row, word);
      inputs <= to_stdlogicvector(word);
      tick;
    end loop;
    for i in 2 to latency loop
      tick;
    end loop;
    wait;
  end process;
end architecture;
