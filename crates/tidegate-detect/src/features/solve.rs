//! Ridge regression, the only fitting that residuals need.

/// A fitted regression.
pub(super) struct Fitted {
    /// The weights.
    pub(super) weights: Vec<f64>,
    /// Inverse of the weighted mean of x·xᵀ, with the penalty, row after row of `terms` numbers.
    pub(super) inverse: Vec<f64>,
}

/// Weights w that minimise the weighted mean of (y − w·x)² + `penalty`·|w|² over `rows` of
/// (x, y, weight).
///
/// `terms` is the length of every x. With a positive penalty there always is a solution.
pub(super) fn ridge<'a>(
    terms: usize,
    penalty: f64,
    rows: impl Iterator<Item = (&'a [f64], f64, f64)>,
) -> Fitted {
    let mut gram = vec![0.0; terms * terms];
    let mut moment = vec![0.0; terms];
    let mut total = 0.0_f64;
    for (x, y, weight) in rows {
        total += weight;
        for i in 0..terms {
            let weighted = x[i] * weight;
            moment[i] += weighted * y;
            for j in 0..=i {
                gram[i * terms + j] += weighted * x[j];
            }
        }
    }
    let total = if total > 0.0 { total } else { 1.0 };
    gram.iter_mut()
        .chain(moment.iter_mut())
        .for_each(|sum| *sum /= total);
    for i in 0..terms {
        gram[i * terms + i] += penalty;
    }
    cholesky(terms, &mut gram);
    let unit = |i: usize| (0..terms).map(|j| f64::from(u8::from(i == j))).collect();
    Fitted {
        weights: substitute(terms, &gram, moment),
        inverse: (0..terms)
            .flat_map(|i| substitute(terms, &gram, unit(i)))
            .collect(),
    }
}

/// Replaces the lower triangle of a positive definite matrix by its Cholesky factor.
fn cholesky(n: usize, matrix: &mut [f64]) {
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| matrix[i * n + k] * matrix[j * n + k]).sum();
            let rest = matrix[i * n + j] - dot;
            matrix[i * n + j] = if i == j {
                rest.max(f64::MIN_POSITIVE).sqrt()
            } else {
                rest / matrix[j * n + j]
            };
        }
    }
}

fn substitute(n: usize, factor: &[f64], mut right: Vec<f64>) -> Vec<f64> {
    for i in 0..n {
        let dot: f64 = (0..i).map(|k| factor[i * n + k] * right[k]).sum();
        right[i] = (right[i] - dot) / factor[i * n + i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| factor[k * n + i] * right[k]).sum();
        right[i] = (right[i] - dot) / factor[i * n + i];
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_data_gives_its_own_coefficients() {
        let rows: Vec<[f64; 3]> = (0..50)
            .map(f64::from)
            .map(|i| [1.0, (i * 0.7).sin(), (i * 1.3).cos()])
            .collect();
        let weights = ridge(
            3,
            1e-12,
            rows.iter().map(|x| (&x[..], 2.0 - 3.0 * x[1] + 0.5 * x[2], 1.0)),
        )
        .weights;
        for (got, expected) in weights.iter().zip([2.0, -3.0, 0.5]) {
            assert!((got - expected).abs() < 1e-8, "{weights:?}");
        }
    }

    #[test]
    fn terms_that_never_vary_still_have_a_solution() {
        let weights = ridge(2, 1e-4, (0..10).map(|_| (&[1.0, 0.0][..], 4.0, 1.0))).weights;
        assert!(
            (weights[0] - 4.0).abs() < 1e-2 && weights[1] == 0.0,
            "{weights:?}"
        );
    }
}
