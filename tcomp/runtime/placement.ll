; Where workers run, on Linux.
;
; A thread that is woken may be put on the core of the one who wakes it, though another core is idle, and then waits until a later
; tick moves it: longer than most parallel loops last. So a sleeping worker is told before it is woken to keep off the caller's
; core; it may use every other one that the caller may use. Nothing is asked of the system while the caller stays where it is.

declare i32 @sched_getcpu() nonlazybind
declare i32 @sched_getaffinity(i32, i64, ptr) nonlazybind
declare i32 @pthread_setaffinity_np(i64, i64, ptr) nonlazybind
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

define internal void @keep_apart(ptr %slot) {
entry:
  ; one bit for each of 1024 cores
  %mask = alloca [16 x i64], align 16
  %cpu = call i32 @sched_getcpu()
  %avoided = getelementptr %slot, ptr %slot, i32 0, i32 2
  %before = load i32, ptr %avoided
  %next = add i32 %cpu, 1
  %same = icmp eq i32 %before, %next
  %known = icmp ult i32 %cpu, 1024
  %unknown = xor i1 %known, true
  %nothing = or i1 %same, %unknown
  br i1 %nothing, label %done, label %ask
ask:
  call void @llvm.memset.p0.i64(ptr %mask, i8 0, i64 128, i1 false)
  %error = call i32 @sched_getaffinity(i32 0, i64 128, ptr %mask)
  %failed = icmp slt i32 %error, 0
  br i1 %failed, label %done, label %clear
clear:
  %word.at = lshr i32 %cpu, 6
  %place = getelementptr [16 x i64], ptr %mask, i32 0, i32 %word.at
  %word = load i64, ptr %place
  %low = and i32 %cpu, 63
  %low64 = zext i32 %low to i64
  %bit = shl i64 1, %low64
  %others = xor i64 %bit, -1
  %rest = and i64 %word, %others
  store i64 %rest, ptr %place
  br label %look
look:
  %i = phi i32 [ 0, %clear ], [ %i1, %look ]
  %any = phi i64 [ 0, %clear ], [ %any1, %look ]
  %at = getelementptr [16 x i64], ptr %mask, i32 0, i32 %i
  %part = load i64, ptr %at
  %any1 = or i64 %any, %part
  %i1 = add i32 %i, 1
  %more = icmp ult i32 %i1, 16
  br i1 %more, label %look, label %decide
decide:
  %alone = icmp eq i64 %any1, 0
  br i1 %alone, label %done, label %set
set:
  %thread.at = getelementptr %slot, ptr %slot, i32 0, i32 3
  %thread = load i64, ptr %thread.at
  %ignored = call i32 @pthread_setaffinity_np(i64 %thread, i64 128, ptr %mask)
  store i32 %next, ptr %avoided
  br label %done
done:
  ret void
}
