; How floating point treats denormal numbers, a mode of each thread. In flush mode operands and results that are denormal count as
; zero; otherwise many CPUs take up to a hundred times as long for them.
;
;   tcomp_flush_denormals() switches it on in the calling thread and returns the mode before; tcomp_restore_mode sets that again.
;   The workers of a parallel region take over their caller's mode.

{declare_mode}

define i32 @tcomp_flush_denormals() {
  %before = call i32 @get_mode()
  %flush = or i32 %before, {flush_bits}
  call void @set_mode(i32 %flush)
  ret i32 %before
}

define void @tcomp_restore_mode(i32 %mode) {
  call void @set_mode(i32 %mode)
  ret void
}
