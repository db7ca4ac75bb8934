# Out of context: the clock, and no paths from or to pins that do not exist yet. Trigger @TRIGGER@.
create_clock -period @CLOCK_NS@ -name clk [get_ports clk]
set_input_delay -clock clk 0.5 [get_ports {inputs[*]}]
set_output_delay -clock clk 0.5 [get_ports {outputs[*]}]
