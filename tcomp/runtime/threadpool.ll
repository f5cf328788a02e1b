; The thread pool behind parallel loops.
;
;   tcomp_parallel_for(n, body, context) runs body(context, begin, end) over ranges that cover 0..n, and returns when all
;   of them have run. One region uses the pool at a time: a nested or concurrent call finds it busy and runs serially in
;   the caller, so nothing waits for a thread that waits for it.
;
; Each worker has a slot of its own with a ticket number. The caller publishes the job and opens it, then adds one to the
; ticket of each worker it wants; a worker waits for its ticket to change by spinning a while, then sleeping on a condition
; variable. While a model runs (between tcomp_begin_run and tcomp_end_run) more regions are sure to come, and workers spin on; they
; never yield their core, which a neighbour of low priority would then keep for milliseconds, unless there are more threads than
; cores. A worker that wakes up enters the job if it is still open. The caller works too; when no range is
; left it closes the job, and waits only for the workers inside. So a worker that the system does not run in time (because
; other programs' threads spin on its core, say) delays nobody, and a job's fields never change under a worker that reads
; them: they are written only while the job is closed and nobody is inside.
;
; Each thread has a share of the iterations, the same one in every region of as many iterations, so that what it left in its caches it
; finds there again. It takes its share in four ranges, and then what is left of the others'.
;
; Lost wake-ups cannot happen: a worker announces that it sleeps, under its mutex, before it looks at its ticket once
; more; the caller changes the ticket before it looks whether the worker sleeps (both sequentially consistent).

; slot: ticket, sleeping, core that the worker keeps off (plus one), thread, padding to a cache line, mutex, condition
%slot = type { i32, i32, i32, i64, [40 x i8], [128 x i8], [128 x i8] }

@slots = internal global [1024 x %slot] zeroinitializer, align 64
@busy = internal global i32 0, align 64
@started = internal global i32 0
@limit = internal global i32 1
@limit_key = internal global i32 0
@spin_turns = internal global i32 1000
@cores = internal global i32 1
; models that run at this moment
@runs = internal global i32 0, align 64
; whether the last region has more threads than there are cores
@crowded = internal global i32 0
@yield_turns = internal constant i32 64

; where the rest of each share begins, each in a cache line of its own
@job_shares = internal global [1024 x [8 x i64]] zeroinitializer, align 64
; workers inside, plus 2^31 while closed
@job_state = internal global i32 -2147483648, align 64
@job_wanted = internal global i32 0
@job_count = internal global i64 0, align 64
@job_parts = internal global i64 1
@job_grain = internal global i64 1
@job_body = internal global ptr null
@job_context = internal global ptr null
@job_mode = internal global i32 0

declare i32 @pthread_create(ptr, ptr, ptr, ptr) nonlazybind
declare i32 @pthread_detach(i64) nonlazybind
declare i32 @pthread_mutex_init(ptr, ptr) nonlazybind
declare i32 @pthread_mutex_lock(ptr) nonlazybind
declare i32 @pthread_mutex_unlock(ptr) nonlazybind
declare i32 @pthread_cond_init(ptr, ptr) nonlazybind
declare i32 @pthread_cond_wait(ptr, ptr) nonlazybind
declare i32 @pthread_cond_signal(ptr) nonlazybind
declare i32 @sched_yield() nonlazybind
declare i32 @pthread_key_create(ptr, ptr) nonlazybind
declare i32 @pthread_setspecific(i32, ptr) nonlazybind
declare ptr @pthread_getspecific(i32) nonlazybind
declare i64 @llvm.smin.i64(i64, i64)
{declare_pause}

define internal void @pause() alwaysinline {
  {pause}
  ret void
}

; where a share begins
define internal i64 @share_begin(i64 %share, i64 %parts, i64 %n) alwaysinline {
  %product = mul i64 %share, %n
  %begin = udiv i64 %product, %parts
  ret i64 %begin
}

; take ranges of the current job until none is left, those of the own share first
define internal void @work(i64 %self) {
entry:
  %n = load i64, ptr @job_count
  %grain = load i64, ptr @job_grain
  %parts = load i64, ptr @job_parts
  %body = load ptr, ptr @job_body
  %context = load ptr, ptr @job_context
  %first = urem i64 %self, %parts
  br label %look
look:
  %visited = phi i64 [ 0, %entry ], [ %visited1, %empty ]
  %far.share = add i64 %first, %visited
  %is.past = icmp uge i64 %far.share, %parts
  %wrapped = sub i64 %far.share, %parts
  %share = select i1 %is.past, i64 %wrapped, i64 %far.share
  %next.share = add i64 %share, 1
  %share.end = call i64 @share_begin(i64 %next.share, i64 %parts, i64 %n)
  %counter = getelementptr [1024 x [8 x i64]], ptr @job_shares, i64 0, i64 %share
  br label %next
next:
  %begin = atomicrmw add ptr %counter, i64 %grain monotonic
  %more = icmp slt i64 %begin, %share.end
  br i1 %more, label %run, label %empty
run:
  %far = add i64 %begin, %grain
  %end = call i64 @llvm.smin.i64(i64 %far, i64 %share.end)
  call void %body(ptr %context, i64 %begin, i64 %end)
  br label %next
empty:
  %visited1 = add i64 %visited, 1
  %all = icmp uge i64 %visited1, %parts
  br i1 %all, label %done, label %look
done:
  ret void
}

; wait until a slot's ticket differs from %seen; returns the new ticket
define internal i32 @await(ptr %slot, i32 %seen) {
entry:
  %spins = load atomic i32, ptr @spin_turns monotonic, align 4
  %patience = mul i32 %spins, 64
  %yields = load i32, ptr @yield_turns
  %sleeping = getelementptr %slot, ptr %slot, i32 0, i32 1
  %mutex = getelementptr %slot, ptr %slot, i32 0, i32 5
  %condition = getelementptr %slot, ptr %slot, i32 0, i32 6
  br label %spin
spin:
  %i = phi i32 [ 0, %entry ], [ %i1, %spin.again ]
  %a = load atomic i32, ptr %slot acquire, align 4
  %a.new = icmp ne i32 %a, %seen
  br i1 %a.new, label %found.spin, label %spin.more
spin.more:
  %i.left = icmp slt i32 %i, %spins
  br i1 %i.left, label %spin.again, label %enough
spin.again:
  call void @pause()
  %i1 = add i32 %i, 1
  br label %spin
enough:
  %crowded = load atomic i32, ptr @crowded monotonic, align 4
  %is.crowded = icmp ne i32 %crowded, 0
  br i1 %is.crowded, label %yield, label %look
look:
  %runs = load atomic i32, ptr @runs monotonic, align 4
  %in.run = icmp sgt i32 %runs, 0
  %i.patient = icmp slt i32 %i, %patience
  %wait.on = and i1 %in.run, %i.patient
  br i1 %wait.on, label %spin.again, label %sleep
yield:
  %j = phi i32 [ 0, %enough ], [ %j1, %yield.again ]
  %b = load atomic i32, ptr %slot acquire, align 4
  %b.new = icmp ne i32 %b, %seen
  br i1 %b.new, label %found.yield, label %yield.more
yield.more:
  %j.left = icmp slt i32 %j, %yields
  br i1 %j.left, label %yield.again, label %sleep
yield.again:
  %ignored = call i32 @sched_yield()
  %j1 = add i32 %j, 1
  br label %yield
sleep:
  %l = call i32 @pthread_mutex_lock(ptr %mutex)
  store atomic i32 1, ptr %sleeping seq_cst, align 4
  br label %check
check:
  %c = load atomic i32, ptr %slot seq_cst, align 4
  %c.new = icmp ne i32 %c, %seen
  br i1 %c.new, label %awake, label %block
block:
  %w = call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %check
awake:
  store atomic i32 0, ptr %sleeping seq_cst, align 4
  %u = call i32 @pthread_mutex_unlock(ptr %mutex)
  ret i32 %c
found.spin:
  ret i32 %a
found.yield:
  ret i32 %b
}

define internal ptr @worker(ptr %slot) {
entry:
  ; the caller is number 0
  %at = ptrtoint ptr %slot to i64
  %base = ptrtoint ptr @slots to i64
  %offset = sub i64 %at, %base
  %slot.end = getelementptr %slot, ptr null, i64 1
  %slot.size = ptrtoint ptr %slot.end to i64
  %number = udiv i64 %offset, %slot.size
  %self = add i64 %number, 1
  ; the ticket is still what it was when the thread was made, or one more: the maker wrote the former into `sleeping`
  %hint = getelementptr %slot, ptr %slot, i32 0, i32 1
  %first = load atomic i32, ptr %hint acquire, align 4
  store atomic i32 0, ptr %hint seq_cst, align 4
  br label %loop
loop:
  %seen = phi i32 [ %first, %entry ], [ %ticket, %again ]
  %ticket = call i32 @await(ptr %slot, i32 %seen)
  br label %look
look:
  %state = load atomic i32, ptr @job_state acquire, align 4
  %wanted = load atomic i32, ptr @job_wanted monotonic, align 4
  %closed = icmp slt i32 %state, 0
  %full = icmp sge i32 %state, %wanted
  %too.late = or i1 %closed, %full
  br i1 %too.late, label %again, label %try
try:
  %one.more = add i32 %state, 1
  %entered = cmpxchg ptr @job_state, i32 %state, i32 %one.more acq_rel monotonic
  %inside = extractvalue { i32, i1 } %entered, 1
  br i1 %inside, label %take.part, label %look
take.part:
  %own.mode = call i32 @get_mode()
  %mode = load i32, ptr @job_mode
  call void @set_mode(i32 %mode)
  call void @work(i64 %self)
  call void @set_mode(i32 %own.mode)
  %left = atomicrmw sub ptr @job_state, i32 1 acq_rel
  br label %again
again:
  br label %loop
}

; start threads until %wanted exist; returns how many there are
define internal i32 @start(i32 %wanted) {
entry:
  %thread = alloca i64
  br label %next
next:
  %have = load i32, ptr @started
  %enough = icmp sge i32 %have, %wanted
  br i1 %enough, label %done, label %make
make:
  %slot = getelementptr [1024 x %slot], ptr @slots, i32 0, i32 %have
  %hint = getelementptr %slot, ptr %slot, i32 0, i32 1
  %mutex = getelementptr %slot, ptr %slot, i32 0, i32 5
  %condition = getelementptr %slot, ptr %slot, i32 0, i32 6
  %m = call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  %c = call i32 @pthread_cond_init(ptr %condition, ptr null)
  %avoided = getelementptr %slot, ptr %slot, i32 0, i32 2
  %handle = getelementptr %slot, ptr %slot, i32 0, i32 3
  store i32 0, ptr %slot
  store i32 0, ptr %avoided
  store atomic i32 0, ptr %hint seq_cst, align 4
  %error = call i32 @pthread_create(ptr %thread, ptr null, ptr @worker, ptr %slot)
  %failed = icmp ne i32 %error, 0
  br i1 %failed, label %done, label %made
made:
  %id = load i64, ptr %thread
  store i64 %id, ptr %handle
  %d = call i32 @pthread_detach(i64 %id)
  %more = add i32 %have, 1
  store i32 %more, ptr @started
  br label %next
done:
  %count = load i32, ptr @started
  ret i32 %count
}

define internal void @call(i32 %index) {
entry:
  %slot = getelementptr [1024 x %slot], ptr @slots, i32 0, i32 %index
  %sleeping = getelementptr %slot, ptr %slot, i32 0, i32 1
  %old = atomicrmw add ptr %slot, i32 1 seq_cst
  %s = load atomic i32, ptr %sleeping seq_cst, align 4
  %is.asleep = icmp ne i32 %s, 0
  br i1 %is.asleep, label %wake, label %done
wake:
  %mutex = getelementptr %slot, ptr %slot, i32 0, i32 5
  %condition = getelementptr %slot, ptr %slot, i32 0, i32 6
  call void @keep_apart(ptr %slot)
  ; once the mutex is ours the worker waits for the signal, or has seen its ticket; let go of it first, or the worker would wake
  ; up just to wait for it
  %l = call i32 @pthread_mutex_lock(ptr %mutex)
  %u = call i32 @pthread_mutex_unlock(ptr %mutex)
  %w = call i32 @pthread_cond_signal(ptr %condition)
  br label %done
done:
  ret void
}

; how many threads the regions of the calling thread may use: its own number where it has one
define internal i64 @own_limit() {
entry:
  %key = load i32, ptr @limit_key
  %own = call ptr @pthread_getspecific(i32 %key)
  %number = ptrtoint ptr %own to i64
  %none = icmp eq i64 %number, 0
  %general = load atomic i32, ptr @limit monotonic, align 4
  %general64 = sext i32 %general to i64
  %limit = select i1 %none, i64 %general64, i64 %number
  ret i64 %limit
}

define void @tcomp_parallel_for(i64 %n, ptr %body, ptr %context) {
entry:
  %limit64 = call i64 @own_limit()
  %threads = call i64 @llvm.smin.i64(i64 %n, i64 %limit64)
  %alone = icmp sle i64 %threads, 1
  br i1 %alone, label %serial, label %enter
enter:
  %claim = cmpxchg ptr @busy, i32 0, i32 1 acquire monotonic
  %got = extractvalue { i32, i1 } %claim, 1
  br i1 %got, label %prepare, label %serial
serial:
  call void %body(ptr %context, i64 0, i64 %n)
  ret void
prepare:
  %helpers64 = sub i64 %threads, 1
  %helpers = trunc i64 %helpers64 to i32
  %have = call i32 @start(i32 %helpers)
  %few = icmp slt i32 %have, %helpers
  %called = select i1 %few, i32 %have, i32 %helpers
  %cores = load i32, ptr @cores
  %more.than.cores = icmp sge i32 %called, %cores
  %crowded = zext i1 %more.than.cores to i32
  store atomic i32 %crowded, ptr @crowded monotonic, align 4
  ; four ranges a share: enough to even out threads of unequal speed
  %parts = shl i64 %threads, 2
  %round = sub i64 %parts, 1
  %sum = add i64 %n, %round
  %grain = udiv i64 %sum, %parts
  store i64 %n, ptr @job_count
  store i64 %grain, ptr @job_grain
  store i64 %threads, ptr @job_parts
  store ptr %body, ptr @job_body
  store ptr %context, ptr @job_context
  %mode = call i32 @get_mode()
  store i32 %mode, ptr @job_mode
  br label %deal
deal:
  %share = phi i64 [ 0, %prepare ], [ %share1, %deal ]
  %counter = getelementptr [1024 x [8 x i64]], ptr @job_shares, i64 0, i64 %share
  %share.begin = call i64 @share_begin(i64 %share, i64 %threads, i64 %n)
  store atomic i64 %share.begin, ptr %counter monotonic, align 8
  %share1 = add i64 %share, 1
  %dealt = icmp uge i64 %share1, %threads
  br i1 %dealt, label %open, label %deal
open:
  store atomic i32 %called, ptr @job_wanted monotonic, align 4
  store atomic i32 0, ptr @job_state release, align 4
  br label %ring
ring:
  %i = phi i32 [ 0, %open ], [ %i1, %ring.one ]
  %left = icmp slt i32 %i, %called
  br i1 %left, label %ring.one, label %own
ring.one:
  call void @call(i32 %i)
  %i1 = add i32 %i, 1
  br label %ring
own:
  call void @work(i64 0)
  %before = atomicrmw or ptr @job_state, i32 -2147483648 acq_rel
  %spins = load atomic i32, ptr @spin_turns monotonic, align 4
  br label %wait
wait:
  %turn = phi i32 [ 0, %own ], [ %turn1, %wait.again ]
  %now = load atomic i32, ptr @job_state acquire, align 4
  %finished = icmp eq i32 %now, -2147483648
  br i1 %finished, label %release, label %wait.more
wait.more:
  %patient = icmp slt i32 %turn, %spins
  br i1 %patient, label %wait.pause, label %wait.yield
wait.pause:
  call void @pause()
  br label %wait.again
wait.yield:
  %y = call i32 @sched_yield()
  br label %wait.again
wait.again:
  %turn1 = add i32 %turn, 1
  br label %wait
release:
  store atomic i32 0, ptr @busy release, align 4
  ret void
}

; around the kernels of a model
define void @tcomp_begin_run() {
  %before = atomicrmw add ptr @runs, i32 1 monotonic
  ret void
}

define void @tcomp_end_run() {
  %before = atomicrmw sub ptr @runs, i32 1 monotonic
  ret void
}

; once, before anything else
define void @tcomp_start_pool(i32 %cores) {
  store i32 %cores, ptr @cores
  %error = call i32 @pthread_key_create(ptr @limit_key, ptr null)
  ret void
}

; how many threads the regions of the calling thread may use from now on; 0 for as many as those of all threads
define void @tcomp_use_threads(i32 %count) {
  %key = load i32, ptr @limit_key
  %wide = sext i32 %count to i64
  %number = inttoptr i64 %wide to ptr
  %error = call i32 @pthread_setspecific(i32 %key, ptr %number)
  ret void
}

; how many threads a region may use, the caller among them, where the calling thread has no number of its own
define void @tcomp_set_num_threads(i32 %count) {
  store atomic i32 %count, ptr @limit monotonic, align 4
  ret void
}

define i32 @tcomp_get_num_threads() {
  %count = load atomic i32, ptr @limit monotonic, align 4
  ret i32 %count
}

define void @tcomp_set_spin(i32 %turns) {
  store atomic i32 %turns, ptr @spin_turns monotonic, align 4
  ret void
}

; in a child process, where no worker exists any more
define void @tcomp_after_fork() {
  store i32 0, ptr @started
  store atomic i32 0, ptr @runs seq_cst, align 4
  store atomic i32 -2147483648, ptr @job_state seq_cst, align 4
  store atomic i32 0, ptr @busy seq_cst, align 4
  ret void
}
