"""Statistics of a bump hunt.

What to use when: `dijet` fits a smooth falling spectrum and tests a peak on it (`crystal_ball` is the peak's shape);
`bumphunter` finds the most significant window without a signal model; `lookelsewhere` turns a local p-value into a
global one; `limits` gives CLs limits; `injection` gives limits and reach when the efficiency depends on the cross
section; `significance` holds the closed forms all of them use.
"""
