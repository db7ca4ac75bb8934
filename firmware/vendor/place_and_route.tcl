# Synthesis, placement and routing of the HLS output on its own, for figures that are placed and not estimated:
#
#   vivado -mode batch -source tcl/place_and_route.tcl
#
# Writes reports/utilization_placed.rpt and reports/timing_routed.rpt. The environment may choose other sources, as a
# list of Verilog or VHDL files: L1AD_RTL="a.v b.v".
set folder [file normalize [file join [file dirname [info script]] ..]]
source [file join $folder tcl options.tcl]
cd $folder
file mkdir reports

set verilog [glob -nocomplain hls/solution1/syn/verilog/*.v]
set vhdl {}
if {[info exists ::env(L1AD_RTL)]} {
    set verilog [lsearch -all -inline -regexp $::env(L1AD_RTL) {\.s?v$}]
    set vhdl [lsearch -all -inline -regexp $::env(L1AD_RTL) {\.vhdl?$}]
}
if {![llength $verilog] && ![llength $vhdl]} {
    puts "ERROR: no RTL in hls/solution1/syn/verilog: run csynth first"
    exit 1
}
if {[llength $verilog]} { read_verilog -sv $verilog }
if {[llength $vhdl]} { read_vhdl $vhdl }
# Tables that HLS initialises from files beside the RTL.
foreach data [glob -nocomplain hls/solution1/syn/verilog/*.dat] { file copy -force $data $folder }

set dsp_limit [expr {$dsp ? "-1" : "0"}]
synth_design -top $top -part $part -mode out_of_context -max_dsp $dsp_limit
set clock_port [get_ports -quiet {ap_clk clk}]
if {[llength $clock_port]} {
    create_clock -name clock -period $clock_ns [lindex $clock_port 0]
} else {
    # Combinational: the whole path must fit in the latency, or in one period if that is 0.
    create_clock -name clock -period [expr {$clock_ns * max($latency_clocks, 1)}]
    set_input_delay 0 -clock clock [all_inputs]
    set_output_delay 0 -clock clock [all_outputs]
}
opt_design
place_design
phys_opt_design
route_design
report_utilization -file reports/utilization_placed.rpt
report_timing_summary -delay_type max -max_paths 1 -file reports/timing_routed.rpt
exit
