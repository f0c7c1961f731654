//! MACs as people see them.

use tidegate_envelope::key::Tag;

#[test]
fn tag_shows_in_debug_output_as_its_hex_digits() {
    let tag = Tag(core::array::from_fn(|i| i as u8));
    let hex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    assert_eq!(tag.to_string(), hex);
    assert_eq!(format!("{tag:?}"), hex);
}
