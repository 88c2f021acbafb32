//! Comparing a recorded value with ours: `max|a − b| / max|b|`.

use super::reference::Tap;
use crate::model::text::TapValue;

/// Our value against the reference's, over the rows and keys that it holds. Ours may have more
/// attended slots than the reference has keys (masked ones: their probabilities must be 0).
///
/// # Errors
/// The shapes do not fit: found and expected.
pub fn error(ours: &TapValue, tap: &Tap) -> Result<f32, (Vec<usize>, Vec<usize>)> {
    let mut ne = tap.ne.clone();
    ne.resize(4, 1);
    let token_axis = tap.token_axis();
    let keys_axis = tap.name.ends_with("attn_probs").then_some(0);
    let fits = (0..4).all(|axis| {
        let (theirs, own) = (ne[axis], ours.ne[axis]);
        let rows = (Some(axis) == token_axis).then_some(tap.rows.as_ref()).flatten();
        match rows {
            Some(rows) => rows.last().is_none_or(|&last| last < own),
            None if Some(axis) == token_axis && tap.name == "logits_last" => theirs <= own,
            None if Some(axis) == keys_axis => theirs <= own,
            None => theirs == own,
        }
    });
    if !fits {
        return Err((tap.ne.clone(), ours.ne.to_vec()));
    }
    let strides = [1, ours.ne[0], ours.ne[0] * ours.ne[1], ours.ne[0] * ours.ne[1] * ours.ne[2]];
    let place = |axis: usize, i: usize| {
        if Some(axis) != token_axis {
            return i * strides[axis];
        }
        let row = match &tap.rows {
            Some(rows) => rows[i],
            // without a list these are the last rows
            None => ours.ne[axis] - ne[axis] + i,
        };
        row * strides[axis]
    };
    let (mut difference, mut greatest) = (0f32, 0f32);
    let mut reference = tap.data.iter();
    for i3 in 0..ne[3] {
        for i2 in 0..ne[2] {
            for i1 in 0..ne[1] {
                let row = place(3, i3) + place(2, i2) + place(1, i1);
                for (i0, b) in (0..ne[0]).zip(&mut reference) {
                    let a = ours.values[row + place(0, i0)];
                    difference = worse(difference, (a - b).abs());
                    greatest = greatest.max(b.abs());
                }
                if keys_axis.is_some() {
                    let masked = &ours.values[row + ne[0]..row + ours.ne[0]];
                    difference = masked.iter().fold(difference, |d, a| worse(d, a.abs()));
                }
            }
        }
    }
    Ok(if difference == 0.0 { 0.0 } else { difference / greatest })
}

/// The greater of two differences; one that is not a number is infinite.
fn worse(a: f32, b: f32) -> f32 {
    if b.is_nan() { f32::INFINITY } else { a.max(b) }
}

/// The first index of the greatest value.
pub fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}

/// Adds what the reference records of the logits: the last rows, best ids, norms.
pub fn derive(values: &mut Vec<TapValue>) {
    let Some(logits) = values.iter().find(|value| value.name == "logits").cloned() else { return };
    let rows: Vec<&[f32]> = logits.values.chunks_exact(logits.ne[0]).collect();
    let per_row = |name: &str, f: &dyn Fn(&[f32]) -> f32| TapValue {
        name: name.into(),
        ne: [rows.len(), 1, 1, 1],
        values: rows.iter().map(|row| f(row)).collect(),
    };
    let derived = [
        per_row("argmax", &|row| argmax(row) as f32),
        per_row("logits_lse", &|row| {
            let max = row.iter().fold(f32::MIN, |a, &b| a.max(b));
            let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
            (f64::from(max) + sum.ln()) as f32
        }),
        per_row("logits_l2", &|row| {
            row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt() as f32
        }),
    ];
    let at = values.iter().position(|value| value.name == "logits").map_or(0, |i| i + 1);
    values.splice(at..at, derived);
    values[at - 1].name = "logits_last".into();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(ne: [usize; 4], values: &[f32]) -> TapValue {
        TapValue { name: "layer00.attn_out".into(), ne, values: values.to_vec() }
    }

    fn tap(name: &str, ne: &[usize], rows: Option<Vec<usize>>, data: &[f32]) -> Tap {
        Tap { name: name.into(), ne: ne.to_vec(), rows, data: data.to_vec() }
    }

    #[test]
    fn the_error_is_relative_to_the_greatest_reference() {
        let ours = ours([2, 2, 1, 1], &[1.0, 2.0, 3.0, 4.5]);
        let all = tap("layer00.attn_out", &[2, 2], None, &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(error(&ours, &all), Ok(0.125));
    }

    #[test]
    fn sub_sampled_rows_are_compared_with_their_own() {
        let ours = ours([2, 3, 1, 1], &[0.0, 0.0, 9.0, 9.0, 3.0, 4.0]);
        let some = tap("layer00.attn_out", &[2, 1], Some(vec![2]), &[3.0, 4.0]);
        assert_eq!(error(&ours, &some), Ok(0.0));
        let beyond = tap("layer00.attn_out", &[2, 1], Some(vec![3]), &[3.0, 4.0]);
        assert!(error(&ours, &beyond).is_err());
    }

    #[test]
    fn what_is_not_a_number_is_infinitely_wrong() {
        let ours = ours([1, 1, 1, 1], &[f32::NAN]);
        let one = tap("layer00.attn_out", &[1, 1], None, &[1.0]);
        assert_eq!(error(&ours, &one), Ok(f32::INFINITY));
    }

    #[test]
    fn probabilities_of_slots_beyond_the_keys_count_as_errors() {
        let mut value = ours([3, 1, 1, 1], &[0.5, 0.5, 0.25]);
        value.name = "layer00.attn_probs".into();
        let keys = tap("layer00.attn_probs", &[2, 1, 1], None, &[0.5, 0.5]);
        assert_eq!(error(&value, &keys), Ok(0.5));
    }
}
