// What the server says in English, in Korean: {} stands for a name or a number, $1, $2 for the same in the Korean.
// A test compares these with the sentences in the library's sources. Findings and their doubts: findings.js.
import { FINDINGS, PIECES } from "./findings.js";

const FACTS = {
  // what the methods show
  "the pixels to which the score is most sensitive": "점수가 가장 민감하게 반응하는 픽셀",
  "each pixel's share of the score, were the network linear": "신경망이 선형이라면 각 픽셀이 점수에 보탠 몫",
  "each pixel's share of the score's difference from a baseline picture": "기준 사진과의 점수 차이 중 각 픽셀의 몫",
  "saliency with the gradient's shot noise averaged out": "기울기의 잡음을 평균 내어 없앤 민감도",
  "where the gradient is unsteady under noise: edges of the decision": "잡음에 기울기가 흔들리는 곳: 판단의 경계",
  "the picture's structure that positive signals trace back to, whatever the forward ReLUs said": "순방향 ReLU와 상관없이 양의 신호를 거슬러 가면 나오는 사진의 구조",
  "fine structure that excites the score; nearly blind to the class and to the weights": "점수를 높이는 가는 구조. 클래스와 가중치에는 거의 반응하지 않음",
  "each cell's share of the class score (their mean, plus the bias, is the logit)": "각 칸이 클래스 점수에 보탠 몫 (평균에 편향을 더하면 로짓)",
  "where the layer holds evidence for the target": "층의 어디에 설명 대상의 증거가 있는지",
  "Grad-CAM that covers several instances and whole objects better": "여러 개체와 대상 전체를 더 잘 덮는 Grad-CAM",
  "what each cell adds to or takes from the score": "각 칸이 점수에 보태거나 깎은 양",
  "Grad-CAM with weights chosen for sensitivity and conservation": "민감도와 보존을 위해 무게를 정한 Grad-CAM",
  "evidence for the target with fine detail, also in early layers": "앞쪽 층에서도 세밀한, 설명 대상의 증거",
  "what dominates the layer, whatever the target": "설명 대상과 상관없이 층을 지배하는 것",
  "every place, at every layer, that the score came through": "점수가 지나온 모든 층의 모든 곳",
  "fine structure inside the regions that speak for the target": "설명 대상을 지지하는 영역 안의 가는 구조",
  "how much the score falls when that part of the picture is covered": "사진의 그 부분을 가리면 점수가 떨어지는 정도",
  "each pixel's share of the score's difference from a background set": "배경 사진들과의 점수 차이 중 각 픽셀의 몫",
  "each pixel's share of the score's difference from a background set, layer by layer": "배경 사진들과의 점수 차이를 층마다 나눈 각 픽셀의 몫",
  "each pixel's share of the score, handed back layer by layer": "층마다 거꾸로 나누어 준 점수 중 각 픽셀의 몫",
  "how much of each patch attention has carried to the class token, whatever the target": "설명 대상과 상관없이 어텐션이 각 조각을 클래스 토큰까지 옮긴 양",
  "the patches that attention carried to the class token and that spoke for the target": "어텐션이 클래스 토큰까지 옮겼고 설명 대상을 지지한 조각",
  "the parts whose presence, among random maskings, goes with a high score": "무작위로 가릴 때 보이면 점수가 높은 부분",
  "what showing each superpixel adds to the score, in a local linear model": "조각 하나를 보이면 점수에 보태지는 양 (국소 선형 모형)",
  "where the layer holds evidence, by forward passes alone": "순방향 계산만으로 본, 층의 증거가 있는 곳",
  "where the layer holds evidence, by switching its channels off one at a time": "채널을 하나씩 꺼서 본, 층의 증거가 있는 곳",
  "the region of the given size that alone keeps the score highest": "그 부분만으로 점수를 가장 높게 지키는, 정해진 크기의 영역",
  // units
  "score": "점수", "score per cell": "칸마다 점수", "score per input unit": "입력 단위마다 점수", "(score per input unit)²": "(입력 단위마다 점수)²", "activation": "활성",
  "sum of rescaled parts": "눈금을 맞춘 부분의 합", "(score per input unit) × (score per cell)": "(입력 단위마다 점수) × (칸마다 점수)", "score drop per pixel": "픽셀마다 점수 하락",
  "probability drop per pixel": "픽셀마다 확률 하락", "share of the class token": "클래스 토큰의 몫", "relevance": "관련도", "mean score where the pixel is kept": "픽셀이 보일 때 점수의 평균",
  "probability": "확률", "activation × share of the score": "활성 × 점수의 몫", "share kept": "남긴 비율",
  // reductions
  "max |·| over channels": "채널에서 |·|의 최대", "sum over channels": "채널의 합", "weighted sum over channels": "채널의 가중합", "ReLU of the weighted sum over channels": "채널 가중합의 ReLU",
  "projection on the first principal component, its sign towards the stronger activation": "첫째 주성분으로의 투영, 부호는 활성이 강한 쪽", "sum of |part| over the input and all channels of all layers": "입력과 모든 층, 모든 채널에서 |부분|의 합",
  "mean over the windows that hold the pixel": "픽셀을 덮은 창들의 평균", "product over layers of half attention, half identity": "어텐션 절반과 항등 절반을 층마다 곱함", "R ← R + E_heads[(A ⊙ ∂score/∂A)⁺] · R over layers": "층마다 R ← R + E_heads[(A ⊙ ∂score/∂A)⁺] · R",
  "mask-weighted mean over samples": "표본의 가리개 가중 평균", "the superpixel's coefficient": "조각의 계수", "the mask itself": "가리개 자체",
  // settings
  "steps of the quadrature": "적분의 단계 수", "where the path starts: mean (of the data set, zero in the input), black, white, blur": "길의 출발점: mean(자료의 평균, 입력에서 0) / black / white / blur", "noisy copies": "잡음을 섞은 장수",
  "standard deviation as a share of the picture's range": "사진 값 범위에 대한 표준편차의 비율", "average the squared gradients instead": "기울기의 제곱을 평균", "keep this many of the strongest channel × weight maps": "가장 강한 채널 × 무게 맵을 이만큼 남김",
  "layer whose grid is drawn (default: the last grid before the class scores)": "격자를 그릴 층 (기본: 클래스 점수 앞의 마지막 격자)", "rescale each channel's |part| to 0..1, as the paper does": "논문처럼 채널마다 |부분|을 0..1로 맞춤", "scale each channel's |part| to 0..1, as the paper does": "논문처럼 채널마다 |부분|을 0..1로 맞춤",
  "side of the square mask in input pixels (default: a seventh of the input's shorter side)": "네모 가리개의 한 변, 입력 픽셀 (기본: 입력 짧은 변의 7분의 1)", "step between masks in input pixels (default: half the window)": "가리개 사이의 간격, 입력 픽셀 (기본: 창의 절반)", "several window sizes, as 16,32,64 (instead of window)": "여러 창 크기, 예: 16,32,64 (window 대신)",
  "side of the mask in input pixels, or rows x columns as 8x16 (default: a seventh of the input's shorter side)": "가리개의 한 변, 입력 픽셀, 또는 8x16처럼 행 x 열 (기본: 입력 짧은 변의 7분의 1)",
  "step between masks in input pixels, or down x across (default: half the window)": "가리개 사이의 간격, 입력 픽셀, 또는 아래 x 옆 (기본: 창의 절반)",
  "what is averaged": "무엇을 평균할지", "average the squares instead": "제곱을 평균", "steps of each integrated gradient": "적분 기울기마다 단계 수",
  "squares or superpixels": "네모(squares) 또는 조각(superpixels)", "superpixels wanted": "원하는 조각 수", "what covers: mean (of the data set: zero in the input), picture-mean, blur, or a value in 0..1": "가리는 것: mean(자료의 평균, 입력에서 0), picture-mean, blur, 또는 0..1의 값", "logit or probability": "logit 또는 probability",
  "auto (incremental where it pays) or dense": "auto(이로울 때 증분 계산) 또는 dense", "cap of the influence boxes as a share of the map (0: exact)": "영향 상자의 상한, 맵에 대한 비율 (0: 정확)", "gradients taken, shared out among the backgrounds": "구할 기울기 수, 배경들이 나눔",
  "pictures that stand for nothing in particular: a file, a folder or a pattern (default: black, grey, white)": "아무것도 아닌 것을 나타내는 사진: 파일, 폴더, 패턴 (기본: 검정, 회색, 흰색)", "quadrature points for functions of several inputs": "여러 입력 함수의 구적점 수", "the rules of convolutions, linear layers and the first layer": "합성곱, 선형 층, 첫 층의 규칙",
  "the rule of the first layer: the composite's own, or another": "첫 층의 규칙: 묶음의 것 또는 다른 것", "ε of the epsilon rule (the other rules take at most 1e-6)": "엡실론 규칙의 ε (다른 규칙은 최대 1e-6)", "γ of the gamma rule": "감마 규칙의 γ", "how heads become one: mean, max or min": "헤드를 하나로 합치는 법: mean, max, min",
  "random masks": "무작위 가리개 수", "cells of the random grid along each side": "한 변의 무작위 격자 칸 수", "probability that a cell is kept": "칸을 남길 확률", "what stands in masked parts: mean (of the data set: zero in the input), picture-mean, blur, or a value in 0..1": "가린 부분에 넣는 것: mean(자료의 평균, 입력에서 0), picture-mean, blur, 또는 0..1의 값",
  "probability or logit": "probability 또는 logit", "random choices of superpixels": "조각을 무작위로 고르는 횟수", "width of the kernel over cosine distances": "코사인 거리 커널의 너비", "strength of the ridge": "릿지의 세기", "what stands in hidden superpixels: mean (of the data set: zero in the input), picture-mean, blur, or a value in 0..1": "숨긴 조각에 넣는 것: mean(자료의 평균, 입력에서 0), picture-mean, blur, 또는 0..1의 값",
  "how channels become masks: plain (published) or exact": "채널을 가리개로 만드는 법: plain(논문) 또는 exact", "share of the picture that is kept": "남길 사진의 비율", "optimisation steps": "최적화 단계 수", "pixels between the mask's grid points (default: side / 32)": "가리개 격자점 사이의 픽셀 (기본: 변 / 32)",
  "radius of each grid point's bump in pixels (default: side · 3 / 32)": "격자점 하나의 반지름, 픽셀 (기본: 변 · 3 / 32)", "step size": "보폭", "show the network the masked picture flipped in every other step": "한 걸음 건너 뒤집은 사진을 보임",
};

const SENTENCES = {
  // points to watch
  "{} of the map is not known (NaN): stopped early, or the network overflowed.": "맵의 $1은(는) 알 수 없음(NaN): 일찍 멈췄거나 신경망의 값이 넘쳤습니다.",
  "The map holds no finite value: the network overflowed, or it was stopped before it began.": "맵에 유한한 값이 없습니다. 신경망의 값이 넘쳤거나 시작하기 전에 멈췄습니다.",
  "The map is zero everywhere: by this method no place of the picture changes the score.": "맵이 어디서나 0입니다. 이 방법으로는 사진의 어느 곳도 점수를 바꾸지 않습니다.",
  "The map is constant ({} everywhere): it tells no place from another.": "맵이 어디서나 $1(으)로 같아 장소를 구별하지 못합니다.",
  "{} of {} ReLUs did not follow the {} rule (hidden from the gradient graph): there the plain gradient was passed on.": "ReLU $2개 중 $1개가 $3 규칙을 따르지 않아(기울기 그래프에 숨음) 그곳에는 보통 기울기를 썼습니다.",
  "No ReLU followed the {} rule: this is the plain gradient.": "$1 규칙을 따른 ReLU가 없어 보통 기울기와 같습니다.",
  "{} activations are written by hand (x * (x > 0), where, maximum, masked_fill, ...) and have no {} rule: there the plain gradient was passed on.": "활성 함수 $1개가 손으로 쓰여 $2 규칙이 없으므로 보통 기울기를 썼습니다.",
  "{} activations (GELU, SiLU, leaky ReLU, ...) have no {} rule: there the plain gradient was passed on.": "활성 함수 $1개(GELU, SiLU, leaky ReLU 등)에는 $2 규칙이 없어 보통 기울기를 썼습니다.",
  "Geometry of {} unknown ({}): drawn by the plain resize, may be off by a cell.": "$1 층의 위치를 알 수 없어($2) 단순 확대로 그렸습니다. 한 칸쯤 어긋날 수 있습니다.",
  "Blank after its ReLU ({}): the layer's evidence, summed so, speaks against the target. Where the classifier weighs cells one by one, see hirescam, which keeps both signs.": "ReLU 뒤에 비었습니다($1). 이렇게 더한 층의 증거는 설명 대상에 반대합니다. 두 부호를 다 보이는 hirescam을 보세요.",
  "Noise: the map's largest value ({}) is rounding beside what was summed ({}): nothing is left of it. Choose another layer.": "잡음: 맵의 최댓값($1)이 더한 값($2)에 견주면 반올림 오차입니다. 다른 층을 고르세요.",
  "{} weighs a channel alike everywhere, so it shows all of a kind, not this one: use layercam or hirescam.": "$1은(는) 채널을 어디서나 똑같이 세므로 이것 하나가 아니라 같은 것 모두를 보입니다. layercam이나 hirescam을 쓰세요.",
  "The mask covers {} instead of {}: take more rounds.": "가리개가 $2 대신 $1을(를) 덮습니다. rounds를 늘리세요.",
  "Completeness: input and biases miss {} of the score: the network is not piecewise linear, or holds biases that no module owns.": "완전성: 입력과 편향의 합이 점수와 $1 다릅니다. 신경망이 조각별 선형이 아니거나 모듈에 없는 편향이 있습니다.",
  "Completeness: the map's sum misses {} of the score's difference; add steps.": "완전성: 맵의 합이 점수 차이와 $1 다릅니다. 단계 수를 늘리세요.",
  "Completeness: the map's sum misses {} of the score's difference; {}.": "완전성: 맵의 합이 점수 차이와 $1 다릅니다. $2.",
  "Completeness: the map's sum misses {} of the score's difference ({}): rounding beside the values summed; the score hardly differs from the background's.": "완전성: 맵의 합이 점수 차이($2)와 $1 다르지만 반올림 오차입니다. 점수가 배경과 거의 같습니다.",
  "LRP has no rule for {}: there the gradient was passed on.": "LRP에 $1의 규칙이 없어 그곳에는 기울기를 썼습니다.",
  "Conservation: {} of the score reached neither the input nor a bias.": "보존: 점수의 $1이(가) 입력에도 편향에도 닿지 않았습니다.",
  "Stopped after {} of {} masks: the map is noisier than asked for.": "가리개 $2장 중 $1장에서 멈춰 맵에 잡음이 더 많습니다.",
  "The local linear model explains only {} of the score's variance.": "국소 선형 모형이 점수 변화의 $1만 설명합니다.",
  "One window covers the whole picture, so the map shows no place; a smaller window does.": "가리개 하나가 사진 전체를 덮어 히트맵에 위치가 나타나지 않습니다. 더 작은 창(window)을 쓰세요.",
  "The picture has no regions of even colour (noise, or one colour): squares stand in for superpixels.": "사진에 고른 색의 영역이 없어(잡음 또는 한 색) 네모로 조각을 대신했습니다.",
  "The score is below zero ({}): the published weights are shares of it and turn their sign, so that this map shows what speaks against the target.": "점수가 0보다 작습니다($1). 논문의 가중치는 점수에 대한 비율이라 부호가 뒤집혀, 이 맵은 대상에 반하는 것을 보여 줍니다.",
  "The score is nearly zero ({}): shares of it mean little.": "점수가 거의 0($1)이라 그 몫은 뜻이 별로 없습니다.",
  "The target is not the prediction, which is {}.": "설명 대상이 예측($1)과 다릅니다.",
  // the legends' notes
  "colours show the difference from {}, the mean over all masks": "색은 모든 가리개의 평균 $1과의 차이",
  "no value lies below 0": "0보다 작은 값이 없음",
  "what lies below 0 is next to nothing, and is drawn as 0": "0보다 작은 값은 아주 작아 0으로 그림",
  "no value lies above 0": "0보다 큰 값이 없음",
  "one patch lies beyond the scale: {}": "조각 하나가 눈금을 벗어남: $1",
  "a few places stand out: 98 % of the pixels use {} of the colours": "몇 곳만 두드러짐: 픽셀의 98 %가 색의 $1만 씀",
  "every value is 0": "모든 값이 0",
  "holds values below 0": "0보다 작은 값이 있음",
  // refusals
  "{} has {} tokens whose places in the picture are not known: use grad-cam.": "$1에 사진에서의 위치를 알 수 없는 토큰이 $2개 있습니다. grad-cam을 쓰세요.",
  "{} has no steps.": "$1에는 단계가 없습니다.",
  "Layer {} gives {}, not a grid of channels: choose a layer with rows and columns (`convoscope layers` shows them).": "$1 층은 채널의 격자가 아니라 $2을(를) 냅니다. 행과 열이 있는 층을 고르세요.",
  "Layer {} gives {} rows for {} pictures (regions or windows of them): choose a layer with one grid for each picture (`convoscope layers` shows them).": "$1 층은 사진 $3장에 $2행(영역이나 창)을 냅니다. 사진마다 격자가 하나인 층을 고르세요.",
  "{} has no layer whose cells keep a place in the picture: methods on layers do not fit it. Use saliency, integrated-gradients or occlusion.": "$1에는 칸이 사진의 자리를 지키는 층이 없습니다. saliency, integrated-gradients, occlusion을 쓰세요.",
  "{} does not end in global average pooling and one linear layer (or a class convolution and pooling), so it has no CAM: use grad-cam, which fits any network.": "$1은(는) 전역 평균 풀링과 선형 층 하나로 끝나지 않아 CAM이 없습니다. 어느 신경망에나 맞는 grad-cam을 쓰세요.",
  "CAM explains class scores: for detections use layercam or hirescam.": "CAM은 클래스 점수를 설명합니다. 검출에는 layercam이나 hirescam을 쓰세요.",
  "CAM explains class scores: for a unit or a function use grad-cam.": "CAM은 클래스 점수를 설명합니다. 유닛이나 함수에는 grad-cam을 쓰세요.",
  "Masks are for single pictures, not for volumes and videos: use a gradient or a CAM method.": "가리개는 사진 한 장을 위한 것입니다. 볼륨과 동영상에는 기울기나 CAM 방법을 쓰세요.",
  "fill must be {}, not {}.": "fill은 $2이(가) 아니라 $1이어야 합니다.",
  "FullGrad draws maps of single pictures, not of volumes: use integrated-gradients.": "FullGrad는 사진 한 장의 맵을 그립니다. 볼륨에는 integrated-gradients를 쓰세요.",
  "{} has no named layers: FullGrad needs its biases.": "$1에는 이름 있는 층이 없습니다. FullGrad에는 편향이 필요합니다.",
  "LRP has no rules for boxes that are proposed, cut out and thinned out: for detectors use grad-cam, integrated-gradients or rise.": "LRP에는 제안하고 오려 내고 솎아 내는 상자의 규칙이 없습니다. 검출기에는 grad-cam, integrated-gradients, rise를 쓰세요.",
  "Deep SHAP has no rules for boxes that are proposed, cut out and thinned out: for detectors use gradient-shap.": "Deep SHAP에는 제안하고 오려 내고 솎아 내는 상자의 규칙이 없습니다. 검출기에는 gradient-shap을 쓰세요.",
  "occlusion.sizes must be whole numbers as 16,32,64, not {}.": "occlusion.sizes는 16,32,64처럼 자연수여야 합니다: $1.",
  "Covering any part changes the score by the same {} per pixel: there is no place to show.{}": "어느 부분을 가려도 점수가 픽셀마다 똑같이 $1 달라져 보일 곳이 없습니다.",
  "{} must be {}, not {}.": "$1은(는) $3이(가) 아니라 $2이어야 합니다.",
  "{} must be one number, or rows and columns as 8x16, not {}.": "$1은(는) 수 하나이거나 8x16처럼 행과 열이어야 합니다: $2.",
  "{} needs a value.": "$1에는 값이 필요합니다.",
  "{}{} has no setting {}; it has: {}.": "$1$2에는 $3 설정이 없습니다. 있는 설정: $4.",
  "The background's pictures become {}, the explained one {}: set a size (--size), or give a background of the same size.": "배경 사진은 $1, 설명할 사진은 $2이(가) 됩니다. 크기(--size)를 정하거나 같은 크기의 배경을 주세요.",
  "{} has no 2-D convolution, so there are no filters to show.": "$1에는 2차원 합성곱이 없어 보일 필터가 없습니다.",
  "Layer {} {}. Convolutions nearest to it: {}.": "$1 층은 합성곱이 아닙니다. 가까운 합성곱: $3.",
  "scale must be own or shared, not {}.": "scale은 own이나 shared여야 합니다: $1.",
  "There is no method {}.{} `convoscope methods` lists all.": "$1 방법이 없습니다. `convoscope methods`가 모두 보여 줍니다.",
  "{} is no method: derive it from convoscope.Method.": "$1은(는) 방법이 아닙니다. convoscope.Method에서 만드세요.",
  // the page's own
  "There is no such file.": "그런 파일이 없습니다.",
  "{} long jobs wait already: wait for one to end, or stop one.": "긴 작업 $1개가 이미 기다립니다. 하나가 끝나기를 기다리거나 멈추세요.",
  "{}: larger than {} MB.": "$1: $2 MB보다 큽니다.",
  "{}: {} million pixels; {} are the limit here.": "$1: $2백만 픽셀. 여기서는 $3백만이 한도입니다.",
  "There is no picture {} here (any more): choose one of the strip, or drop it in again.": "$1 사진이 (이제) 없습니다. 위에서 고르거나 다시 놓으세요.",
  "{} has changed since this page was started: start it again.": "이 화면을 켠 뒤 $1이(가) 바뀌었습니다. 다시 켜세요.",
  "{}: the file is not there any more.": "$1: 파일이 이제 없습니다.",
  "{}: not a picture in a format that is read here ({}).": "$1: 여기서 읽는 형식($2)의 사진이 아닙니다.",
  "{}: the file is larger than {} MB.": "$1: 파일이 $2 MB보다 큽니다.",
  "{}: the file cannot be read ({}).": "$1: 파일을 읽을 수 없습니다($2).",
  "{} questions wait for the network already: try again in a moment.": "질문 $1개가 이미 기다립니다. 잠시 뒤 다시 하세요.",
  "The server is shutting down.": "서버가 꺼지는 중입니다.",
  "The request is larger than {} bytes, which is the limit here.": "요청이 한도인 $1바이트보다 큽니다.",
  "Targets that name files are for the command line, not for the page.": "파일을 가리키는 설명 대상은 명령줄에서만 쓸 수 있습니다.",
  "Settings that name files are for the command line, not for the page.": "파일을 가리키는 설정은 명령줄에서만 쓸 수 있습니다.",
  "A setting must be METHOD.NAME=VALUE, such as occlusion.window=32, not {}.": "설정은 occlusion.window=32처럼 방법.이름=값이어야 합니다: $1.",
  "{}: {} is not among the methods asked for.": "$1: $2은(는) 고른 방법에 없습니다.",
  "Layer {} was not surveyed; these were: {}.": "$1 층은 조사하지 않았습니다. 조사한 층: $2.",
  "There is no sheet {} of thumbnails.": "작은 사진 모음 $1이(가) 없습니다.",
  "Say on which picture.": "어느 사진인지 말하세요.",
  "A job makes one map: name one method.": "작업 하나는 히트맵 하나를 만듭니다. 방법 하나를 고르세요.",
  "Say what to visualise: a class or a unit (layer:channel).": "무엇을 그릴지 말하세요: 클래스 또는 유닛(층:채널).",
  "Name the methods whose maps are to be judged.": "검증할 히트맵의 방법을 고르세요.",
  "The objective {} starts from a picture: name one.": "목표 $1은(는) 사진에서 시작합니다. 사진을 고르세요.",
  "There is no survey of a collection here: make one with the button, or serve with --survey.": "사진 모음을 조사하지 않았습니다. 단추로 조사하거나 --survey로 켜세요.",
  "A survey needs a folder of pictures: start the page with --images FOLDER.": "조사하려면 사진 폴더가 필요합니다. --images 폴더로 켜세요.",
  "A survey needs an extra: pip install 'convoscope[survey]'.": "조사하려면 추가 설치가 필요합니다: pip install 'convoscope[survey]'.",
  "The collection holds no thumbnail of {}.": "사진 모음에 $1의 작은 사진이 없습니다.",
  "{} methods at once: {} are the limit.": "한 번에 방법 $1개: $2개가 한도입니다.",
  "{} needs hundreds of passes: ask for it with a job (POST /api/jobs).": "$1은(는) 수백 번의 계산이 필요합니다. 작업으로 요청하세요(POST /api/jobs).",
  "There is no such job (any more).": "그런 작업이 (이제) 없습니다.",
  "No convolution comes before {}: it has no filters.": "$1 앞에 합성곱이 없어 필터가 없습니다.",
  "Layer {} has {} channels (0 to {}): not {}.": "$1 층에는 채널이 $2개(0에서 $3까지) 있습니다: $4은(는) 없습니다.",
  "{} is no unit: write layer:channel.": "$1은(는) 유닛이 아닙니다. 층:채널로 쓰세요.",
  "The unit {} fires for no picture of the collection, or is not among the strongest.": "유닛 $1은(는) 사진 모음의 어느 사진에도 반응하지 않거나, 가장 강한 유닛에 들지 않습니다.",
  "Layer {} has {} channels: there is no channel {}.": "$1 층에는 채널이 $2개 있습니다. 채널 $3은(는) 없습니다.",
  "The unit {} has no patch {}.": "유닛 $1에 조각 $2이(가) 없습니다.",
  "The unit {} fires for no picture of the collection.": "유닛 $1은(는) 사진 모음의 어느 사진에도 반응하지 않습니다.",
  "The unit {} fires for no picture of the collection, or is not among the strongest.": "유닛 $1은(는) 사진 모음의 어느 사진에도 반응하지 않거나, 가장 강한 유닛에 들지 않습니다.",
  "Every neuron was computed again and has its stored value.": "모든 뉴런을 다시 계산했고 저장된 값과 같습니다.",
  // targets, and what a network cannot do
  "Layer {} returns a {}, not one tensor: choose another.": "$1 층은 텐서 하나가 아니라 $2을(를) 냅니다. 다른 층을 고르세요.",
  "Layer {} was not reached in this forward: choose another layer.": "이 계산에서 $1 층에 닿지 않았습니다. 다른 층을 고르세요.",
  "The score has no gradient: the network (or the target) runs under no_grad, in integers, or cuts the graph with detach(); a picture cannot be found by gradient ascent there.": "점수에 기울기가 없습니다(no_grad, 정수, detach()). 경사 상승으로 그림을 찾을 수 없습니다.",
  "Out of memory: use a smaller --batch-size or --size ({}).": "메모리가 모자랍니다. --batch-size나 --size를 줄이세요($1).",
  "The network ran on the picture itself, but not in the way in which this method runs it: {}": "신경망은 사진 자체에는 돌아가지만 이 방법의 방식으로는 돌지 않습니다: $1",
  "This method failed on this network ({}): {}": "이 신경망에서 이 방법이 실패했습니다($1): $2",
  "This method must see every operation, and inside a traced or scripted module none can be seen: give the original module, or use a pixel method (saliency, integrated-gradients, occlusion).": "이 방법은 모든 연산을 보아야 하는데 추적되거나 스크립트된 모듈 안은 보이지 않습니다. 원래 모듈을 주거나 saliency, integrated-gradients, occlusion을 쓰세요.",
  "Layer {} runs under no_grad or is cut off by detach(), so the score has no gradient there: use eigen-cam, score-cam, ablation-cam or occlusion.": "$1 층은 no_grad로 실행되거나 detach()로 끊겨 있어 점수의 기울기가 없습니다. eigen-cam, score-cam, ablation-cam, occlusion을 쓰세요.",
  "The score has no gradient: the network (or the target) runs under no_grad, in integers, or cuts the graph with detach(). Methods without gradients still work: occlusion, eigen-cam, rise.": "점수에 기울기가 없습니다(no_grad, 정수, detach()). 기울기가 필요 없는 occlusion, eigen-cam, rise를 쓰세요.",
  "The attention is not part of the gradient graph: use attention-rollout.": "어텐션이 기울기 그래프에 없습니다. attention-rollout을 쓰세요.",
  "The score has no gradient here: attention-rollout needs none.": "여기서는 점수에 기울기가 없습니다. 필요 없는 attention-rollout을 쓰세요.",
  "This network attends within windows (as Swin does), so no attention leads from one window to another and there is nothing to roll out: use grad-cam, which fits any network.": "이 신경망은 창 안에서만 어텐션을 하므로(Swin처럼) 창 사이를 잇는 것이 없습니다. 어느 신경망에나 맞는 grad-cam을 쓰세요.",
  "This network has no attention: attention maps are for vision transformers. Use grad-cam, which fits any.": "이 신경망에는 어텐션이 없습니다. 어텐션 맵은 비전 트랜스포머용입니다. 어느 신경망에나 맞는 grad-cam을 쓰세요.",
  "This network's attentions have different numbers of tokens (pooled keys, stages, or class attention), so they do not chain: use grad-cam, which fits any network.": "이 신경망의 어텐션은 토큰 수가 서로 달라 이어지지 않습니다. 어느 신경망에나 맞는 grad-cam을 쓰세요.",
  "Deep SHAP has no rule for torch.nn.MultiheadAttention's fused forward: use gradient-shap.": "Deep SHAP에는 torch.nn.MultiheadAttention의 규칙이 없습니다. gradient-shap을 쓰세요.",
  "The score has no gradient, so there are no multipliers: use occlusion or rise.": "점수에 기울기가 없습니다. occlusion이나 rise를 쓰세요.",
  "The score has no gradient, and so no relevance can be handed back: use occlusion or rise.": "점수에 기울기가 없어 관련도를 돌려줄 수 없습니다. occlusion이나 rise를 쓰세요.",
  "fills of windows are [M, C, {}], not {}": "창의 채우기는 [M, C, $1]이어야 합니다: $2",
  "The target {} has no probability: use score=logit.": "설명 대상 $1에는 확률이 없습니다. score=logit을 쓰세요.",
  "A target can be a class number, a name or a function, not {}.": "설명 대상은 클래스 번호, 이름, 함수여야 합니다: $1.",
  "The target and --against are the same class: their difference is zero.": "설명 대상과 비교 대상이 같은 클래스라 차이가 0입니다.",
  "The target is empty: give a class name, a number, or top1.": "설명 대상이 비었습니다. 클래스 이름, 번호, top1 중 하나를 주세요.",
  "There is no class named {}.{}": "$1 클래스가 없습니다.$2",
  "There is no class {}: the network has {} (0 to {}). The class called {} is {}.": "$1번 클래스가 없습니다. 신경망에는 $2개(0에서 $3까지) 있습니다. 이름이 $4인 클래스는 $5번입니다.",
  "There is no class {}: the network has {} (0 to {}).": "$1 클래스가 없습니다. 신경망에는 $2개(0에서 $3까지) 있습니다.",
  "This network has no class names: give {} as a number, or add --labels FILE.": "이 신경망에는 클래스 이름이 없습니다. $1을(를) 번호로 주거나 --labels 파일을 더하세요.",
  "{} could be {}{}: give the whole name or the number.": "$1은(는) $2$3일 수 있습니다. 이름 전체나 번호를 주세요.",
  "{} gives no class scores, so nothing can be explained against {}: ask without it.": "$1은(는) 클래스 점수를 내지 않아 $2와(과) 비교할 수 없습니다.",
  "{} is label {}, but the network has {} classes (0 to {}).": "$1은(는) $2번인데 신경망에는 클래스가 $3개(0에서 $4까지) 있습니다.",
  "{} names {} classes ({}): give a number.": "$1(이)라는 클래스가 $2개 있습니다($3). 번호를 주세요.",
  "{} returns one number, so there is nothing to explain it against.": "$1은(는) 수 하나를 내므로 비교할 것이 없습니다.",
  "{}: the network has only {} classes.": "$1: 신경망에는 클래스가 $2개뿐입니다.",
  "A direction ({}) has no probability: use score=logit.": "방향($1)에는 확률이 없습니다. score=logit을 쓰세요.",
  "A direction needs finite values that are not all zero.": "방향에는 모두 0은 아닌 유한한 값이 필요합니다.",
  "The direction has {} values and layer {} {} channels: give one each.": "방향에는 값이 $1개, $2 층에는 채널이 $3개입니다. 수를 맞추세요.",
  "The part {} of this sum has not been read: give the sum to parse() first.": "이 합의 $1 부분을 읽지 않았습니다.",
  "{}: cannot be read ({}).": "$1: 읽을 수 없습니다($2).",
  "{}: not a .npy file with one value a channel ({}).": "$1: 채널마다 값 하나인 .npy 파일이 아닙니다($2).",
  "{}: there is no such file with a direction.": "$1: 그런 방향 파일이 없습니다.",
  "{} returns a map of classes: name one (segment:CLASS) instead of {}.": "$1은(는) 클래스의 맵을 냅니다. $2 대신 segment:클래스로 하나를 고르세요.",
  "A part of an instance is {}, not {}.": "개체의 부분은 $1이어야 합니다: $2.",
  "The detector returned another kind of output for the changed picture.": "바뀐 사진에 검출기가 다른 종류의 출력을 냈습니다.",
  "The {} of an instance has no probability: use score=logit.": "개체의 $1에는 확률이 없습니다. score=logit을 쓰세요.",
  "{} finds boxes without masks: leave @mask away.": "$1은(는) 마스크 없는 상자를 찾습니다. @mask를 빼세요.",
  "{} returns no detections (a list of boxes, labels and scores for each picture): name a class, a segment, or give a callable target.": "$1은(는) 검출을 내지 않습니다. 클래스나 segment를 고르세요.",
  "A landmark has no probability here: use score=logit.": "표식에는 확률이 없습니다. score=logit을 쓰세요.",
  "The network returned no heat maps for the changed picture.": "바뀐 사진에 신경망이 표식 맵을 내지 않았습니다.",
  "There is no landmark {}: {} has {} (0 to {}).": "표식 $1이(가) 없습니다. $2에는 $3개(0에서 $4까지) 있습니다.",
  "{} finds boxes without landmarks.": "$1은(는) 표식 없는 상자를 찾습니다.",
  "{} returns coordinates: say which, landmark:{}@x or @y.": "$1은(는) 좌표를 냅니다. landmark:$2@x나 @y로 쓰세요.",
  "{} returns no landmarks: heat maps, keypoints or coordinates.": "$1은(는) 표식을 내지 않습니다.",
  "{}'s landmarks have no names: give {} as a number.": "$1의 표식에는 이름이 없습니다. $2을(를) 번호로 주세요.",
  "A similarity has no probability: use score=logit.": "유사도에는 확률이 없습니다. score=logit을 쓰세요.",
  "The two pictures have embeddings of different length: give both one input size.": "두 사진의 임베딩 길이가 다릅니다. 입력 크기를 같게 하세요.",
  "{}: name at least one other picture.": "$1: 다른 사진을 하나 이상 고르세요.",
  "An output by name has no probability: use score=logit.": "이름으로 고른 출력에는 확률이 없습니다. score=logit을 쓰세요.",
  "output:{} is {}: it must have one row for each of {} pictures.": "output:$1은(는) $2입니다. 사진 $3장마다 한 행이어야 합니다.",
  "output:{}: index {} (number {}) is beyond {}.": "output:$1: 번호 $2($3번째)이(가) $4을(를) 넘습니다.",
  "The semantic network of the two returns no map of classes.": "둘 중 의미 분할 신경망이 클래스의 맵을 내지 않습니다.",
  "A direction is written direction:LAYER@FILE.npy, with one value a channel in the file.": "방향은 direction:층@파일.npy로 씁니다.",
  "A sum of targets has an empty part: write them as  tabby - tiger cat.": "합에 빈 부분이 있습니다. tabby - tiger cat처럼 쓰세요.",
  "segment: needs a class, a point of the photo, or both (segment:dog@120,80).": "segment:에는 클래스나 사진의 점이 필요합니다(segment:dog@120,80).",
  "{} cannot be contrasted with --against: name two classes, or write a difference: a - b.": "$1은(는) 비교할 수 없습니다. 클래스 둘을 고르거나 a - b로 쓰세요.",
  "{}: needs a picture ({}:other.jpg), a folder, or several with commas.": "$1: 사진($2:other.jpg)이나 폴더가 필요합니다.",
  "The mask is {}, the photo {}: both must be rows × columns.": "마스크는 $1, 사진은 $2입니다. 행 × 열이 같아야 합니다.",
  "A function as target has no probability: use score=logit.": "함수에는 확률이 없습니다. score=logit을 쓰세요.",
  "The target function returned a {}, not a tensor of scores.": "설명 대상 함수가 점수 텐서가 아니라 $1을(를) 냈습니다.",
  "The target function returned shape {}: it must be one score per picture, ({},).": "설명 대상 함수의 모양이 $1입니다. 사진마다 점수 하나여야 합니다: ($2,).",
  "The network returned another kind of map for the changed picture.": "바뀐 사진에 신경망이 다른 종류의 맵을 냈습니다.",
  "{} returns no map of classes: name a class, an instance, or give a callable target.": "$1은(는) 클래스의 맵을 내지 않습니다. 클래스나 개체를 고르세요.",
  "A unit ({}) has no probability: use score=logit.": "유닛($1)에는 확률이 없습니다. score=logit을 쓰세요.",
  "Layer {} has a {} grid: there is no neuron at {},{}.": "$1 층의 격자는 $2입니다. $3,$4에는 뉴런이 없습니다.",
  "Layer {} has {} channels (0 to {}): there is no channel {}.": "$1 층에는 채널이 $2개(0에서 $3까지) 있습니다. 채널 $4은(는) 없습니다.",
  "Layer {} has no neuron at row {}, column {}.": "$1 층의 $2행 $3열에는 뉴런이 없습니다.",
  "Name a unit to switch off, as layer:channel.": "끌 유닛을 층:채널로 고르세요.",
  "The mask {} covers no pixel of the network's input of {}×{} pixels.": "가리개 $1이(가) $2×$3 픽셀 입력을 하나도 가리지 않습니다.",
  "{} is no unit: write layer:channel, such as conv1:0.": "$1은(는) 유닛이 아닙니다. conv1:0처럼 층:채널로 쓰세요.",
  // of the further tabs
  "A piece of {} pixels does not fit: the network's input is {}×{} pixels.": "$1 픽셀 조각이 맞지 않습니다. 신경망의 입력은 $2×$3 픽셀입니다.",
  "The two pictures make inputs of different sizes: a piece can only go from one input to an equal one.": "두 사진의 입력 크기가 다릅니다. 조각은 같은 크기의 입력으로만 옮길 수 있습니다.",
  "The score, or its gradient, is NaN on this picture: no mask can be found.": "이 사진에서 점수나 기울기가 NaN이라 가리개를 찾을 수 없습니다.",
  "No convolution of {} runs before {}.": "$2 앞에 $1의 합성곱이 없습니다.",
  "{} has no layer {}. Nearest: {}.": "$1에는 $2 층이 없습니다. 가까운 것: $3.",
  "{} has {} channels of {}×{} cells: there is no cell at channel {}, row {}, column {}.": "$1에는 $3×$4칸인 채널이 $2개 있습니다. 채널 $5, $6행 $7열의 칸은 없습니다.",
  "{} runs no 2-D convolution and no linear layer on this picture.": "$1은(는) 이 사진에 2차원 합성곱도 선형 층도 쓰지 않습니다.",
  "{} of {} masks gave no finite score: left out.": "가리개 $2장 중 $1장은 점수가 유한하지 않아 뺐습니다.",
  "Name a tag whose pictures show the concept, and the class that might depend on it.": "개념을 보이는 사진의 꼬리표와, 그것에 기댈 수 있는 클래스를 고르세요.",
  "The tag {} is on {} pictures: a concept needs 10 at least.": "꼬리표 $1이(가) 붙은 사진이 $2장입니다. 개념에는 10장 이상이 필요합니다.",
  "There is no second network here: start the page with --against MODEL2.": "둘째 신경망이 없습니다. --against 모델2로 켜세요.",
  "Units are held against labelled parts, and there are none beside these pictures (truth.json and parts/, as `convoscope toybox` writes them). Others, such as COCO: `convoscope concepts dissect`, then serve --diagnosis DIR.": "유닛을 견줄, 이름 붙은 부분이 이 사진들 곁에 없습니다(truth.json과 parts/). COCO 같은 것은 `convoscope concepts dissect` 뒤에 serve --diagnosis 폴더로 여세요.",
  "Choose the pictures first.": "먼저 사진을 고르세요.",
  "{} pictures at once: {} are the limit here; the command line takes any number.": "한 번에 사진 $1장: 여기서는 $2장이 한도입니다. 명령줄에는 한도가 없습니다.",
  "Cannot listen on port {} ({}): choose another, or 0 for a free one.": "포트 $1에서 들을 수 없습니다($2). 다른 번호나 0을 고르세요.",
  "The frame's height is between 100 and 10000 pixels, not {}.": "틀의 높이는 100에서 10000 픽셀이어야 합니다: $1.",
  "The page could not be started; `convoscope serve` says more.": "화면을 켤 수 없습니다. `convoscope serve`가 더 알려 줍니다.",
  "{}: there is no such folder of pictures.": "$1: 그런 사진 폴더가 없습니다.",
  "There are no pictures to examine: start the page with --images FOLDER or --survey STORE.": "살펴볼 사진이 없습니다. --images 폴더나 --survey 저장소로 켜세요.",
  "A lasso is written x,y;x,y;x,y.": "올가미는 x,y;x,y;x,y로 씁니다.",
  "The list's address cannot be read.": "목록의 주소를 읽을 수 없습니다.",
  "There is no finding {} here.": "발견 $1이(가) 없습니다.",
  "This picture is not of the collection: its neighbours are under /api/collection/neighbors.": "사진 모음에 없는 사진입니다. 이웃은 /api/collection/neighbors에 있습니다.",
  "Labels were not examined yet.": "정답(레이블)을 아직 살펴보지 않았습니다.",
  "The network has no class {}.": "신경망에 $1 클래스가 없습니다.",
  "{} is not of this version of Convoscope: make it anew.": "$1은(는) 이 판의 Convoscope 것이 아닙니다. 새로 만드세요.",
  "{} has no layer {}.": "$1에는 $2 층이 없습니다.",
  "What {} wants was not made yet.": "$1이(가) 좋아하는 그림은 아직 만들지 않았습니다.",
  "This job has made no such file.": "이 작업은 그런 파일을 만들지 않았습니다.",
  "Only {} steps follow {}.": "$2 뒤에는 $1단계뿐입니다.",
  "There are {} channels: not {}.": "채널은 $1개입니다: $2은(는) 없습니다.",
  "This piece lies outside the network's input.": "이 조각은 신경망 입력의 바깥에 있습니다.",
  // of the survey
  "The map could not be kept in the store: {}": "분포도를 저장소에 남기지 못했습니다: $1",
  "The map was made when the store held {} of its {} pictures; it is used as it is for placing.": "사진 $2장 중 $1장일 때 만든 분포도를 그대로 씁니다.",
  "The metric must be cosine or l2, not {}.": "거리는 cosine이나 l2여야 합니다: $1.",
  "{}: a map is written as {}.": "$1: 분포도는 $2(으)로 씁니다.",
  "The store keeps {} pictures of each unit: k must be between 1 and {}, not {}.": "저장소는 유닛마다 사진 $1장을 남깁니다. k는 1에서 $2까지여야 합니다: $3.",
  "Whole pictures are shown: {} has no geometry because {}.": "사진 전체를 보입니다. $1의 위치를 알 수 없습니다: $2.",
  "Without guided backpropagation: {}": "유도 역전파 없이: $1",
  "{} holds no picture yet.": "$1에 아직 사진이 없습니다.",
  "{} of {} recomputed neurons deviate from the stored value, the most in {}: {} instead of {}.": "다시 계산한 뉴런 $2개 중 $1개가 저장된 값과 다릅니다. 가장 큰 차이는 $3: $5 대신 $4.",
  "{} of {} units are shown: those with the strongest response.": "유닛 $2개 중 가장 강하게 반응한 $1개를 보입니다.",
  "{} photos could not be shown: {}": "사진 $1장을 보일 수 없습니다: $2",
  "{} cannot tell mistakes: {}.": "$1(으)로는 실수를 알 수 없습니다: $2.",
  "{} pictures without a label of the network's classes are left out.": "신경망의 클래스에 없는 정답을 가진 사진 $1장은 뺐습니다.",
  // verdicts, in parts
  "beats random by {}": "무작위보다 $1 나음",
  "hardly better than random (by {})": "무작위보다 겨우 나음($1)",
  "no better than random ({})": "무작위와 다르지 않음($1)",
  "{} survives a random classifier: it hardly shows what was learnt there": "분류기를 무작위로 바꿔도 $1이(가) 남음: 배운 것을 거의 보이지 않음",
  "{} survives a random classifier": "분류기를 무작위로 바꿔도 $1이(가) 남음",
  "stable": "잡음에도 그대로",
  "unstable under noise (rank correlation {})": "잡음에 흔들림(순위 상관 $1)",
  "nothing could be measured": "아무것도 잴 수 없었음",
  "Judged on the score, not the probability: that of the target is {}.": "확률이 아니라 점수로 검증함: 설명 대상의 확률이 $1입니다.",
  "Slow method: its map was not computed again, so its stability is not known.": "느린 방법이라 히트맵을 다시 계산하지 않아 안정성을 알 수 없습니다.",
  "Not compared with a randomised network: {}": "무작위 신경망과 비교하지 못함: $1",
  "Stability not measured: {}": "안정성을 재지 못함: $1",
};

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
// the longest first, so that a general sentence does not catch what a particular one says; {#} is a number
const rules = (all, gap) => all.sort((a, b) => b[0].length - a[0].length).map(([english, korean]) => [new RegExp(`^${english.split("{}").map((part) => part.split("{#}").map(escaped).join("([\\d.,]+ ?%?)")).join(gap)}$`, "is"), korean]);
const BREAK = /(?<=[.?!])\s+(?=[A-Z0-9])/;
const findings = Object.entries(FINDINGS);
// a gap of the server's sentences never holds several parts; one of a finding may hold a whole phrase, but no sentence
const RULES = rules([...Object.entries(SENTENCES), ...findings.filter(([english]) => BREAK.test(english))], "((?:(?!; ).)*?)");
const FOUND = rules(findings, "(.*?)");
const pieces = Object.entries(PIECES).filter(([english]) => english.includes(" "));
const LONG = rules(pieces.filter(([english]) => english.includes("; ")), "(.*?)");
const PARTS = rules(pieces, "(.*?)");

const filled = (korean, found) => korean.replace(/\$(\d)/g, (_, n) => phrase(found[Number(n)] ?? ""));

function matched(text, among) {
  for (const [pattern, korean] of among) {
    const found = pattern.exec(text);
    if (found) return filled(korean, found);
  }
  return null;
}

/** What stands in a gap: a known phrase, several with commas or semicolons between them, or a name as it is. */
function phrase(text) {
  if (Object.hasOwn(PIECES, text)) return PIECES[text];
  if (!text.includes(" ")) return text;
  const long = matched(text, LONG);
  if (long !== null) return long;
  if (text.includes("; ")) return text.split("; ").map(phrase).join("; ");
  const whole = matched(text, PARTS);
  if (whole !== null) return whole;
  if (text.includes(", ")) return text.split(", ").map(phrase).join(", ");
  if (text.includes(") and ")) return text.split(/(?<=\)) and /).map(phrase).join(", ");
  return text;
}

/** A sentence of the server in Korean; as it is where nobody has put it into Korean. */
export function inKorean(text) {
  const whole = FACTS[text] ?? matched(text, RULES);
  if (whole != null) return whole;
  const sentences = text.split(BREAK);
  if (sentences.length > 1) return sentences.map(inKorean).join(" ");
  const found = matched(text, FOUND);
  if (found !== null) return found;
  // verdicts and notes are several parts between semicolons, with a full stop at the end
  const parts = text.replace(/\.$/, "").split("; ");
  return parts.map((part) => FACTS[part] ?? matched(part, RULES) ?? matched(`${part}.`, RULES) ?? matched(part, FOUND) ?? phrase(part)).join("; ");
}
