//! All `unsafe` of the micro-benchmarks: requests to callgrind, and an allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::CStr;

/// Callgrind's requests, as `valgrind/callgrind.h` numbers them: part of valgrind's stable ABI.
const BASE: usize = (b'C' as usize) << 24 | (b'T' as usize) << 16;
const DUMP_STATS_AT: usize = BASE + 3;
const START_INSTRUMENTATION: usize = BASE + 4;
const STOP_INSTRUMENTATION: usize = BASE + 5;

/// Asks valgrind for something; without valgrind the instructions do nothing.
///
/// # Safety
/// `argument` must be what `request` expects.
#[inline]
unsafe fn client_request(request: usize, argument: usize) {
    let arguments: [usize; 6] = [request, argument, 0, 0, 0, 0];
    // SAFETY: the rotations add up to twice the width of the register, and a register exchanged with
    // itself stays as it is: on the machine only the flags change. Valgrind knows this very sequence
    // as a request: it reads `arguments`, whose address is in rax, and sets rdx.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") arguments.as_ptr(),
            inout("rdx") 0_usize => _,
            options(nostack),
        );
    }
    // SAFETY: as above, with the sequence for this machine; the address is in x4, the answer in x3.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "ror x12, x12, #3",
            "ror x12, x12, #13",
            "ror x12, x12, #51",
            "ror x12, x12, #61",
            "orr x10, x10, x10",
            in("x4") arguments.as_ptr(),
            inout("x3") 0_usize => _,
            options(nostack),
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    compile_error!("valgrind's request sequence is known here for x86_64 and aarch64 only");
}

/// From here on callgrind counts.
#[inline]
pub fn start_counting() {
    // SAFETY: the request takes no argument.
    unsafe { client_request(START_INSTRUMENTATION, 0) }
}

/// Callgrind writes what it has counted to its next file, under this name, and forgets it.
#[inline]
pub fn stop_counting(name: &CStr) {
    // SAFETY: the request takes no argument.
    unsafe { client_request(STOP_INSTRUMENTATION, 0) }
    // SAFETY: the request takes a text that ends with a zero byte, and only reads it.
    unsafe { client_request(DUMP_STATS_AT, name.as_ptr().expose_provenance()) }
}

/// The system's allocator, with a count of the bytes that are in use.
struct Counting;

thread_local! {
    /// Of this thread, as tests run beside each other; what another thread allocated may be freed here, so it wraps.
    static LIVE: Cell<usize> = const { Cell::new(0) };
}

/// Bytes that this thread has allocated and not freed, as they were asked for: without the allocator's own.
pub fn live_bytes() -> usize {
    LIVE.with(Cell::get)
}

fn grow(by: usize) {
    LIVE.with(|live| live.set(live.get().wrapping_add(by)));
}

// SAFETY: every call is the system allocator's with the same arguments; the count is beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    // Not left to the default, which would touch pages that nobody has used yet.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grow(size.wrapping_sub(layout.size()));
        // SAFETY: the caller's promises are the same.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        grow(layout.size().wrapping_neg());
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
