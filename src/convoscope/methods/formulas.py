"""The methods in one line of mathematics each, for "what am I looking at?" on the page and in the report.

x is the network's input, y the explained score, A the output of a layer with channels k and cells (i, j), w weights.
"""

from __future__ import annotations

FORMULAS: dict[str, str] = {
    "saliency": "M(p) = max over channels |∂y/∂x(p)|",
    "input-x-gradient": "M(p) = Σ over channels x(p) · ∂y/∂x(p)",
    "integrated-gradients": "M(p) = Σ over channels (x − x₀)(p) · ∫₀¹ ∂y/∂x (x₀ + t (x − x₀))(p) dt",
    "lrp": "Rⱼ = Σₖ (aⱼ wⱼₖ / Σⱼ' aⱼ' wⱼ'ₖ) Rₖ from the score down, with the rule of each layer; M = R at the input",
    "gradient-shap": "M(p) = mean over backgrounds x₀ and t ∈ [0, 1] of (x − x₀)(p) · ∂y/∂x (x₀ + t (x − x₀))(p)",
    "deep-shap": "M(p) = mean over backgrounds x₀ of (x − x₀)(p) · m(p), m: slopes Δoutput / Δinput, chained by layer",
    "smoothgrad": "M(p) = max over channels | mean over noise ε of ∂y/∂x (x + ε)(p) |",
    "vargrad": "M(p) = max over channels Var over noise ε of ∂y/∂x (x + ε)(p)",
    "attention-rollout": "M = class token's row of Πₗ ½ (Aₗ + 1), rows summing to 1; Aₗ: attention of layer l",
    "attention-gradient": "R ← R + mean over heads of max(0, Aₗ ⊙ ∂y/∂Aₗ) · R, from R = 1; "
    "M = class token's row of R − 1",
    "deconvnet": "∂y/∂x with every ReLU's backward pass replaced by g ↦ max(g, 0); M(p) = max over channels |·|",
    "guided-backprop": "∂y/∂x with every ReLU's backward pass replaced by g ↦ max(g, 0) · [activation > 0]; "
    "M(p) = max over channels |·|",
    "cam": "M(i, j) = Σₖ wₖ · Aₖ(i, j)",
    "grad-cam": "M(i, j) = max(0, Σₖ αₖ Aₖ(i, j)),  αₖ = mean over cells of ∂y/∂Aₖ",
    "grad-cam++": "M(i, j) = max(0, Σₖ wₖ Aₖ(i, j)),  wₖ = Σᵢⱼ αₖ(i, j) · max(0, ∂y/∂Aₖ(i, j))",
    "hirescam": "M(i, j) = Σₖ ∂y/∂Aₖ(i, j) · Aₖ(i, j)",
    "xgrad-cam": "M(i, j) = max(0, Σₖ wₖ Aₖ(i, j)),  wₖ = Σᵢⱼ Aₖ(i, j) ∂y/∂Aₖ(i, j) / Σᵢⱼ Aₖ(i, j)",
    "layercam": "M(i, j) = max(0, Σₖ max(0, ∂y/∂Aₖ(i, j)) · Aₖ(i, j))",
    "eigen-cam": "M(i, j) = (A(i, j) − mean of A over the cells) · v₁,  v₁ = first principal axis of the cells",
    "fullgrad": "M = |x ⊙ ∂y/∂x| + Σ over layers of |b ⊙ ∂y/∂b|, drawn at the input's size",
    "guided-grad-cam": "M = guided backpropagation ⊙ Grad-CAM",
    "occlusion": "M(p) = mean over the windows W that hold p of (y(x) − y(x covered at W)) / |W|",
    "rise": "M(p) = Σₙ y(x ⊙ mₙ) · mₙ(p) / (N · E[m])",
    "lime": "M(p) = weight of p's segment in the linear model that fits y(x with segments covered)",
    "score-cam": "M(i, j) = max(0, Σₖ wₖ Aₖ(i, j)),  wₖ = softmax over k of y(x ⊙ Aₖ enlarged to 0..1)",
    "ablation-cam": "M(i, j) = max(0, Σₖ wₖ Aₖ(i, j)),  wₖ = (y − y with channel k at 0) / y",
    "extremal-perturbation": "M = the mask of a given area that keeps the most: argmax over m of y(x ⊙ m)",
}
