"""The text of docs/optimizers.md: states and bytes from the registry, formulas, sources and uses from this table."""

from __future__ import annotations

from typing import Any

import pullback as pb

HEAD = """# Update rules

Made by `python tools/docs.py` from the registry of rules and a table of formulas. One struct per rule (csrc/optim) and
one driver for all: weight decay, unscaling, clipping, the finite check, groups, per-tensor step counts, state formats,
checkpoints and the differentiable form are the same for every row. States are full-size tensors kept besides the
parameter. Bytes are those of one float32 parameter in an ideal step: parameter and states read and written, gradient
read, and what a sum over whole tensors has to read before. c1 = 1 - beta1^t, c2 = 1 - beta2^t; m and v are the averages
of g and g^2; |.| runs over the whole model unless a row says otherwise.
"""

TAIL = """
A group with the key `prox` is followed by a proximal step: `("l1", c)`, `("box", low, high)`, `("ball", radius)`,
`("group", c)`. `Adam(amsgrad="paper", adamnc=True)` with `prox=("box", low, high)` is AMSGrad as published, with the
schedule beta2 = 1 - 1/t and its projection.

Beside the rules: `EMA` and `PolynomialAverage` of weights; `clip_grad_norm_`, `clip_grad_value_` and `clip_per_sample`;
`NormTest`, which finds the next batch size from the gradients of examples or micro-batches (Lau et al. 2024);
`extrapolate`, the guess of `OptAMSGrad`; `sde`, simulators of the equations behind SAM and USAM.

`python -m pullback demo --optimizer NAME` trains two small nets with settings that work, `--optimizer all` with every
optimizer; `python bench/optim.py` times every rule.

## Choices where sources differ

- A-DoG: both sequences move by the present distance and weight; then the distance takes in the new w, the weight
  a = max(1, sum of r / (2 r)) follows, and p = y + (w - y) / a. This is the order of the authors' code.
- T-DoG: the square of log(60 log(6 t) / delta) enters G', as the proof of bounded iterates needs; the present t stands
  in for a horizon, and the largest gradient norm for the bound on gradients.
- U-DoG: G without logarithmic factors, M + Q; A-DoG and DoG offer the polynomial average, U-DoG its weighted mean.
- GAM: four gradients by default; `exact=True` is the published algorithm with two Hessian products, whose weight is
  betas[2].
- OPT-AMSGrad: w accumulates, p looks ahead; an extrapolated guess is the sum of c_i g_{i+1} over the last gradients of
  the whole model.
- eps stands outside the root and after the correction everywhere; `eps_mode="before"` is the other order.
"""

# classes: (rules of the registry, bytes read for sums, formula, source, when). Rules may be a number of states instead.
# What is read beyond 12 + 8 a state; negative where a state is only read or the parameter only written.
ROWS: list[tuple[str, tuple[str, ...] | str, int | None, str, str, str]] = [
    ("SGD", ("sgd", "momentum"), 0, "m = mom m + g; p -= lr m", "Polyak 1964, Nesterov 1983",
     "a baseline; vision with a schedule"),
    ("ExpScaledSGD", ("exp_scaled",), 0, "p -= s lr m, s ~ Exp(1)", "Zhang, Cutkosky 2024",
     "SGD with a nonconvex guarantee"),
    ("ExpScaled", "base", 0, "base with lr times s ~ Exp(1)", "Zhang, Cutkosky 2024", "the same over Adam"),
    ("RMSprop", ("rmsprop", "rmsprop_momentum", "rmsprop_both"), 0, "p -= lr g / (sqrt(v) + eps)",
     "Tieleman, Hinton 2012", "recurrent nets, reinforcement learning"),
    ("Adagrad", ("adagrad",), 0, "v += g^2; p -= lr g / (sqrt(v) + eps)", "Duchi et al. 2011", "sparse gradients"),
    ("Adadelta", ("adadelta",), 0, "p -= lr g sqrt(d + eps) / sqrt(v + eps)", "Zeiler 2012", "no rate to choose"),
    ("Adam AdamW", ("adam",), 0, "p -= lr (m/c1) / (sqrt(v/c2) + eps)", "Kingma, Ba 2014; Loshchilov, Hutter 2017",
     "the default"),
    ("Adam(amsgrad=)", ("amsgrad",), 0, "the largest v so far", "Reddi et al. 2018", "rare large gradients"),
    ("NAdam", ("nadam",), 0, "Adam with Nesterov's momentum", "Dozat 2016", "a little faster than Adam at the start"),
    ("RAdam", ("radam",), 0, "Adam with a rectified rate", "Liu et al. 2019", "Adam without warm-up"),
    ("Lion", ("lion",), 0, "p -= lr grad kappa(beta1 m + (1 - beta1) g)", "Chen et al. 2023",
     "half the state of Adam"),
    ('Lion(kappa="l2" or "lp")', ("lion_l2",), 8, "the same with a norm by tensor", "Chen, Liu et al. 2023",
     "other shapes of the bound on weights"),
    ("Grams", ("grams",), 0, "p -= lr sign(g) abs(Adam)", "Cao et al. 2024", "Adam that never climbs"),
    ("CautiousAdamW", ("cautious",), 8, "AdamW where it agrees with g", "Liang et al. 2024", "the same, by a mask"),
    ("DiffGrad", ("diffgrad",), 0, "Adam times sigmoid(change of g)", "Dubey et al. 2019",
     "shorter steps where g is steady"),
    ("AdEMAMix", ("ademamix",), 0, "p -= lr (m/c1 + alpha n) / (sqrt(v/c2) + eps)", "Pagliardini et al. 2024",
     "long runs of language models"),
    ("Gravity", ("gravity",), 4, "v = b v + (1 - b) g / (1 + (g max g)^2)", "Bahrami, Pourkamali 2021",
     "large outliers in g"),
    ("OptAMSGrad", ("opt_amsgrad",), -4, "AMSGrad and one step along a guess of g", "Wang et al. 2019",
     "predictable gradients, games"),
    ("AdagradNorm", ("adagrad_norm",), 4, "p -= lr g / sqrt(b0^2 + sum of squared norms)", "Ward et al. 2018",
     "SGD without tuning"),
    ("NormalizedGD", ("normalized_gd",), 4, "p -= lr g / norm^beta", "Chen et al. 2023", "exploding gradients"),
    ("SPIDER", "v and the point before", 4, "v += g(p) - g(p_before); p -= lr v / norm(v)", "Fang et al. 2018",
     "finite sums with a full gradient now and then"),
    ("DoG LDoG", ("dog", "dog_averaged"), -4, "p -= lr r / sqrt(G) g, r the way from the start", "Ivgi et al. 2023",
     "fine-tuning without a rate"),
    ("TDoG", ("tdog", "tdog_averaged"), -4, "DoG with a larger G", "Ivgi et al. 2023", "bounded iterates by proof"),
    ("ADoG", ("adog", "adog_averaged"), 0, "y = p - eta g, w -= a eta g, p = y + (w - y)/a", "Kreisler et al. 2024",
     "DoG with momentum"),
    ("UDoG", ("udog",), 20, "extragradient pair with such a step", "Kreisler et al. 2024",
     "smooth losses without a rate"),
    ("Prodigy", ("prodigy",), 24, "Adam times an estimated distance", "Mishchenko, Defazio 2023",
     "Adam without a rate"),
    ("LAMB", ("lamb",), 16, "Adam's direction at the norm of p, by tensor", "You et al. 2019", "large batches"),
    ("ScheduleFreeAdamW", ("schedule_free",), 0, "gradients between z and its average x", "Defazio et al. 2024",
     "no schedule, no end of training"),
    ("Muon", ("momentum",), None, "momentum made orthogonal", "Jordan et al. 2024", "weight matrices of transformers"),
    ("OASIS", "diagonal and the point before", None, "p -= eta g / diagonal of the Hessian", "Jahani et al. 2021",
     "badly scaled problems"),
    ("SGLD", ("sgld",), 0, "p -= lr/2 g + sqrt(lr T) xi, xi normal", "Welling, Teh 2011", "samples of a posterior"),
    ("SAM ASAM USAM DNSAM", "base + 1", 0, "base, gradient at p + rho g / norm", "Foret 2020, Kwon 2021",
     "flat minima at twice the cost"),
    ("GAM", "base + 2", 0, "base, four gradients, or two and two Hessian products", "Zhang et al. 2023",
     "flatter still"),
    ("GradientRegularization", "base + 1", 0, "base, g + gamma H g by differences or exactly", "Karakida et al. 2022",
     "a penalty on the gradient's norm"),
    ("XGrad", "base + 1", 0, "base, gradient where it will be", "Guan 2023", "delayed gradients"),
    ("Lookahead", "base + 1", 0, "every k steps: slow += alpha (p - slow), p = slow", "Zhang et al. 2019",
     "steadier ends of training"),
]  # fmt: skip


def render() -> str:
    """The whole file."""
    rules: dict[str, dict[str, Any]] = {row["name"]: row for row in pb._core.optim_rules()}
    lines = [HEAD, "| class | formula | states | bytes | source | when |", "|---|---|---|---|---|---|"]
    for classes, names, more, formula, source, when in ROWS:
        states, size = names, ""
        if not isinstance(names, str):
            counts = [len(rules[name]["slots"]) for name in names]
            states = " or ".join(map(str, dict.fromkeys(counts)))
            size = "products" if more is None else " or ".join(str(12 + 8 * n + more) for n in dict.fromkeys(counts))
        elif classes in ("OASIS", "GAM"):
            size = "products" if classes == "OASIS" else ""
        elif names.startswith("base"):
            size = {"base": "base", "base + 1": "base + 16"}[names] if classes != "Lookahead" else "base + 20/k"
        elif classes == "SPIDER":
            size = "48"
        title = " ".join(f"`{c}`" for c in ([classes] if "(" in classes else classes.split()))
        lines.append(f"| {title} | {formula} | {states} | {size} | {source} | {when} |")
    return "\n".join(lines) + "\n" + TAIL
