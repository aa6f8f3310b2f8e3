//! Memory asked for before it is needed. Of a thousand calls each is far from the processor by the
//! time of its next turn, and to wait for its memory piece by piece takes longer than the turn.

/// Bytes that come at once.
const LINE: usize = 64;

/// Asks for all that a value is made of, but not for what it refers to, and waits for nothing.
#[inline(always)]
pub fn bring<T: ?Sized>(value: &T) {
    let first = std::ptr::from_ref(value).cast::<u8>();
    let size = size_of_val(value);
    for at in (0..size).step_by(LINE).chain(size.checked_sub(1)) {
        branches::prefetch_read_data::<u8, 0>(first.wrapping_add(at));
    }
}
