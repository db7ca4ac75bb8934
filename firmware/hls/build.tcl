# Builds the HLS project: csim, csynth, cosim, export.
#
#   Vitis 2024.1 and later   vitis-run --mode hls --tcl tcl/build.tcl
#   Vitis HLS 2020.2-2023.2  vitis_hls -f tcl/build.tcl
#   Vivado HLS to 2020.1     vivado_hls -f tcl/build.tcl
#
# The environment chooses the steps: L1AD_STEPS="csim csynth cosim export"; csim and csynth by default.
set folder [file normalize [file join [file dirname [info script]] ..]]
source [file join $folder tcl options.tcl]

set steps {csim csynth}
if {[info exists ::env(L1AD_STEPS)]} { set steps $::env(L1AD_STEPS) }

cd $folder
open_project -reset hls
set_top $top
foreach name $sources { add_files [file join $folder $name] -cflags "-std=c++14" }
add_files -tb [file join $folder tb test_bench.cpp] -cflags "-std=c++14 -Wno-unknown-pragmas"
add_files -tb [file join $folder tb golden.dat]

# Vitis wants to know for whom it builds; Vivado HLS does not know the option.
if {[catch {open_solution -reset -flow_target vivado solution1}]} { open_solution -reset solution1 }
set_part $part
create_clock -period $clock_ns -name default
if {$clock_uncertainty ne ""} { set_clock_uncertainty $clock_uncertainty }

# Everything in fabric: the boards keep their DSPs for others. Older tools have no such command and need none: products
# this narrow do not reach a DSP there.
if {!$dsp} { catch {config_op mul -impl fabric} }
catch {config_array_partition -complete_threshold 4096}
catch {config_compile -name_max_length 80}

if {"csim" in $steps} { csim_design }
if {"csynth" in $steps || "cosim" in $steps || "export" in $steps} { csynth_design }
if {"cosim" in $steps} { cosim_design -rtl verilog }
if {"export" in $steps} { export_design -format ip_catalog -rtl vhdl -ipname $top -version $ip_version }
exit
