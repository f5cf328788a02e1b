; Memory for what a kernel keeps while it runs and is too large for the stack.
;
;   tcomp_take(bytes) returns memory aligned to 64 bytes, or null where there is none; tcomp_give(pointer) hands it back.
;   tcomp_failures() counts how often there was none: a run during which it grows has no result.
;
; What is given back stays on a shelf for the next one who asks, so that a loop which needs a buffer in each iteration does not
; ask the system each time. The shelf is a row of places that are taken and filled by atomic exchanges: no thread ever waits, and
; a fork at any moment leaves it usable.

@failures = internal global i32 0
@shelf = internal global [32 x ptr] zeroinitializer, align 64
; larger buffers are not kept
@keep_bytes = internal constant i64 16777216

declare ptr @aligned_alloc(i64, i64) nonlazybind
declare void @free(ptr) nonlazybind

define ptr @tcomp_take(i64 %bytes) {
entry:
  br label %look
look:
  %i = phi i64 [ 0, %entry ], [ %next, %pass ]
  %place = getelementptr [32 x ptr], ptr @shelf, i64 0, i64 %i
  %seen = load atomic ptr, ptr %place monotonic, align 8
  %empty = icmp eq ptr %seen, null
  br i1 %empty, label %pass, label %grab
grab:
  %mine = atomicrmw xchg ptr %place, ptr null acq_rel
  %lost = icmp eq ptr %mine, null
  br i1 %lost, label %pass, label %measure
measure:
  %header = getelementptr i8, ptr %mine, i64 -64
  %capacity = load i64, ptr %header
  %fits = icmp uge i64 %capacity, %bytes
  br i1 %fits, label %found, label %return
return:
  %swap = cmpxchg ptr %place, ptr null, ptr %mine acq_rel monotonic
  %back = extractvalue { ptr, i1 } %swap, 1
  br i1 %back, label %pass, label %drop
drop:
  call void @free(ptr %header)
  br label %pass
pass:
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, 32
  br i1 %more, label %look, label %new
found:
  ret ptr %mine
new:
  %padded = add i64 %bytes, 127
  %size = and i64 %padded, -64
  %block = call ptr @aligned_alloc(i64 64, i64 %size)
  %none = icmp eq ptr %block, null
  br i1 %none, label %fail, label %made
made:
  %room = sub i64 %size, 64
  store i64 %room, ptr %block
  %result = getelementptr i8, ptr %block, i64 64
  ret ptr %result
fail:
  %before = atomicrmw add ptr @failures, i32 1 monotonic
  ret ptr null
}

define void @tcomp_give(ptr %mine) {
entry:
  %header = getelementptr i8, ptr %mine, i64 -64
  %capacity = load i64, ptr %header
  %limit = load i64, ptr @keep_bytes
  %large = icmp ugt i64 %capacity, %limit
  br i1 %large, label %drop, label %look
look:
  %i = phi i64 [ 0, %entry ], [ %next, %pass ]
  %place = getelementptr [32 x ptr], ptr @shelf, i64 0, i64 %i
  %seen = load atomic ptr, ptr %place monotonic, align 8
  %empty = icmp eq ptr %seen, null
  br i1 %empty, label %fill, label %pass
fill:
  %swap = cmpxchg ptr %place, ptr null, ptr %mine acq_rel monotonic
  %done = extractvalue { ptr, i1 } %swap, 1
  br i1 %done, label %kept, label %pass
pass:
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, 32
  br i1 %more, label %look, label %drop
kept:
  ret void
drop:
  call void @free(ptr %header)
  ret void
}

define i32 @tcomp_failures() {
  %count = load atomic i32, ptr @failures monotonic, align 4
  ret i32 %count
}
