# Vivado, out of context: vivado -mode batch -source build.tcl. Reports go to reports/. Trigger @TRIGGER@ (@HASH@).
set here [file normalize [file dirname [info script]]]
file mkdir $here/reports
create_project -in_memory -part @PART@
@READ@
if {[file exists $here/constraints.xdc]} { read_xdc -mode out_of_context $here/constraints.xdc }
synth_design -top @TOP@ -part @PART@ -mode out_of_context -flatten_hierarchy full -max_dsp 0
report_utilization -file $here/reports/synth_utilization.rpt
opt_design
place_design
phys_opt_design
route_design
report_utilization -file $here/reports/utilization.rpt
report_timing_summary -file $here/reports/timing.rpt
write_checkpoint -force $here/reports/routed.dcp
set slack [get_property SLACK [lindex [get_timing_paths -max_paths 1 -nworst 1 -setup] 0]]
puts "l1ad: worst setup slack $slack ns"
if {$slack ne "" && $slack < 0} { exit 1 }
