// Longer explanations, for people who are not engineers, in English and Korean.
import { lang } from "./i18n.js";

const en = {
  page: [
    "This page looks inside a network that sorts pictures. Choose a picture above. Decide asks why the network says what it says; Layer shows what each part of the network makes of the picture; Collection shows how it arranges many pictures.",
    "The address holds everything that you chose: send it, and somebody else sees the same view.",
  ],
  caution: "A heatmap shows where the network's arithmetic was sensitive. It does not show that the network understands the object, nor that it is right.",
  methods: {
    "saliency": "Every pixel is nudged a little, in thought. Where a nudge would change the score most, the map is bright.",
    "guided-backprop": "Like saliency, but only what speaks for the class is followed back to the picture. Sharp and pretty; it often looks like the picture itself whatever the class, so do not take it as proof.",
    "deconvnet": "The score is sent backwards through the network, and only what is positive goes on. It shows patterns, hardly places.",
    "grad-cam": "Which cells of a late layer spoke for the class. Coarse, but it does depend on the class: compare two classes.",
    "guided-grad-cam": "The fine lines of guided backpropagation, kept only where Grad-CAM says that the class is.",
    "cam": "Each cell's own share of the score. Their mean is the score itself, so nothing is left over.",
    "occlusion": "A grey square covers one part after the other. Red is where covering it hurts the score, blue where it helps.",
    "integrated-gradients": "The picture fades in from black, and each pixel is credited with what it adds on the way. The credits sum up to the score's change.",
    "input-x-gradient": "How much each pixel's value times its influence adds to the score.",
    "smoothgrad": "Saliency, averaged over slightly noisy copies of the picture, so that flicker cancels out.",
    "rise": "Thousands of random masks are laid over the picture; a pixel is bright if the score stays high when it can be seen.",
    "lime": "The picture is cut into patches, some are hidden at random, and a simple model learns which patches matter.",
  },
  layer: [
    "A layer is one step of the network. It holds many channels, and each channel looks for one kind of thing everywhere in the picture. A tile shows where in this picture a channel found it: bright means strongly.",
    "Early layers see small pieces (edges, colours), late ones see large pieces (wheels, roofs). The square on the photo is what one cell can see.",
  ],
  unit: [
    "A unit is one channel of a layer. The patches are the pieces of real pictures for which it fires most, typically and least: what they have in common hints at what it looks for.",
    "The picture that it wants was made by the computer, from noise, to make the unit fire as much as it can. Switch the unit off to see whether the decision needs it.",
  ],
  collection: [
    "Each point is a picture. Pictures that the network finds alike lie near each other. Groups mean that it tells them apart; a point among strangers is worth a look.",
    "Distances between far groups, and the sizes of groups, mean little in such a map. The figures say how many true neighbours are kept.",
  ],
  trust: {
    survives: "left with a random classifier", noise: "rank correlation under noise",
    why: "Three checks: does covering what the map calls important hurt the score more than random maps do; does the map change when the classifier is random; does it stay under faint noise. None is a proof.",
  },
  tour: [
    ["#strip", "Pictures", "These are the pictures. Choose one, or drop one of your own on the page: it stays on this computer."],
    [".answers", "The answer", "The network's answer, with how sure it is. Choose a name to ask: why this one? “Rather than” asks what tells two apart."],
    ["#maps", "Heatmaps", "A heatmap shows where in the picture the answer came from. Each method asks in another way. Move over one: all show the same place. They say where the network was sensitive, not whether it is right."],
    [".tools-bar", "Try it", "Cover a part of the photo and watch the bars: that is the most honest test. Or draw a region and read how much of the evidence lies inside."],
    ["#left", "Layers", "The network works in layers. Early ones see edges and colours in small pieces, late ones see whole things. Choose one to see what it makes of the picture."],
    ["#right", "Units", "In a layer, each unit looks for one kind of thing. Its card shows what it fires for in many pictures. Switch it off and see what changes. One unit seldom means one word: do not name it too fast."],
    ["#tab-collection", "The collection", "The map shows which pictures the network finds alike, and where it is wrong. That is all: the address above holds this view, to be shared."],
  ],
};

const ko = {
  page: [
    "이 화면은 사진을 분류하는 신경망의 속을 들여다봅니다. 위에서 사진을 고르세요. 판단은 왜 그렇게 답했는지, 층은 신경망의 각 부분이 사진을 어떻게 보는지, 모음은 많은 사진을 어떻게 늘어놓는지 보여 줍니다.",
    "주소에 선택한 것이 모두 담깁니다. 주소를 보내면 다른 사람도 같은 화면을 봅니다.",
  ],
  caution: "열 지도는 신경망의 계산이 어디에 민감했는지 보여 줄 뿐입니다. 신경망이 대상을 이해했다거나 옳다는 증거는 아닙니다.",
  methods: {
    "saliency": "픽셀 하나하나를 아주 조금 바꾼다고 생각합니다. 점수가 가장 많이 달라질 곳이 밝습니다.",
    "guided-backprop": "민감도와 같지만 그 분류를 지지하는 것만 사진까지 거슬러 따라갑니다. 선명하고 예쁘지만 어떤 분류든 사진과 비슷해 보일 때가 많으니 증거로 삼지 마세요.",
    "deconvnet": "점수를 신경망에 거꾸로 흘려보내며 양수만 남깁니다. 무늬는 보이지만 위치는 거의 알려 주지 않습니다.",
    "grad-cam": "뒤쪽 층의 어느 칸이 그 분류를 지지했는지 보여 줍니다. 거칠지만 분류에 따라 달라집니다. 두 분류를 비교해 보세요.",
    "guided-grad-cam": "유도 역전파의 가는 선 가운데 Grad-CAM이 가리키는 곳만 남깁니다.",
    "cam": "각 칸이 점수에 보탠 몫입니다. 평균이 곧 점수라서 남는 것이 없습니다.",
    "occlusion": "회색 네모로 한 부분씩 가립니다. 가리면 점수가 떨어지는 곳은 빨강, 오르는 곳은 파랑입니다.",
    "integrated-gradients": "검은 화면에서 사진이 서서히 나타나는 동안 각 픽셀이 보탠 만큼을 셉니다. 모두 더하면 점수의 변화가 됩니다.",
    "input-x-gradient": "각 픽셀의 값과 그 영향을 곱해 점수에 보탠 양을 봅니다.",
    "smoothgrad": "잡음을 살짝 섞은 여러 장에서 민감도를 평균 내어 깜박임을 없앱니다.",
    "rise": "무작위 가리개 수천 장을 씌웁니다. 그 픽셀이 보일 때 점수가 높으면 밝습니다.",
    "lime": "사진을 조각으로 나누어 일부를 무작위로 숨기고, 어느 조각이 중요한지 단순한 모형이 배웁니다.",
  },
  layer: [
    "층은 신경망의 한 단계입니다. 층에는 채널이 많고, 채널마다 사진 곳곳에서 한 가지를 찾습니다. 칸 하나하나는 그 채널이 이 사진의 어디에서 찾았는지를 보여 주며, 밝을수록 강합니다.",
    "앞쪽 층은 작은 조각(모서리, 색)을, 뒤쪽 층은 큰 조각(바퀴, 지붕)을 봅니다. 사진 위의 네모가 한 칸이 볼 수 있는 범위입니다.",
  ],
  unit: [
    "유닛은 층의 채널 하나입니다. 조각들은 이 유닛이 가장 강하게, 보통으로, 가장 약하게 반응한 실제 사진의 부분입니다. 공통점이 무엇을 찾는지 알려 줍니다.",
    "원하는 그림은 컴퓨터가 잡음에서 시작해 이 유닛이 가장 강하게 반응하도록 만든 것입니다. 유닛을 꺼서 판단에 꼭 필요한지 확인해 보세요.",
  ],
  collection: [
    "점 하나가 사진 하나입니다. 신경망이 닮았다고 보는 사진은 가까이 놓입니다. 무리는 서로 구별한다는 뜻이고, 낯선 무리 속의 점은 살펴볼 만합니다.",
    "먼 무리 사이의 거리나 무리의 크기는 이런 지도에서 뜻이 별로 없습니다. 숫자는 진짜 이웃이 얼마나 보존되었는지 알려 줍니다.",
  ],
  trust: {
    survives: "무작위 분류기에서도 남는 몫", noise: "잡음 아래의 순위 상관",
    why: "세 가지를 봅니다. 지도가 중요하다고 한 곳을 가리면 무작위보다 점수가 더 떨어지는가, 분류기를 무작위로 바꾸면 지도가 달라지는가, 희미한 잡음에도 그대로인가. 어느 것도 증명은 아닙니다.",
  },
  tour: [
    ["#strip", "사진", "여기에 사진이 있습니다. 하나를 고르거나 내 사진을 끌어다 놓으세요. 사진은 이 컴퓨터를 떠나지 않습니다."],
    [".answers", "답", "신경망의 답과 얼마나 확신하는지입니다. 이름을 고르면 왜 이것인지 묻습니다. ‘대신’은 둘을 가르는 것이 무엇인지 묻습니다."],
    ["#maps", "열 지도", "열 지도는 답이 사진의 어디에서 나왔는지 보여 줍니다. 방법마다 묻는 방식이 다릅니다. 하나 위에서 움직이면 모두 같은 자리를 가리킵니다. 어디에 민감했는지일 뿐, 옳다는 뜻은 아닙니다."],
    [".tools-bar", "해 보기", "사진의 일부를 가리고 막대를 지켜보세요. 가장 정직한 시험입니다. 영역을 그리면 증거 중 얼마가 그 안에 있는지 읽을 수 있습니다."],
    ["#left", "층", "신경망은 층으로 일합니다. 앞쪽은 작은 조각의 모서리와 색을, 뒤쪽은 전체를 봅니다. 하나를 골라 사진을 어떻게 보는지 살펴보세요."],
    ["#right", "유닛", "층 안에서 유닛마다 한 가지를 찾습니다. 카드는 많은 사진에서 무엇에 반응하는지 보여 줍니다. 꺼 보고 무엇이 달라지는지 보세요. 유닛 하나가 낱말 하나를 뜻하는 일은 드뭅니다."],
    ["#tab-collection", "모음", "지도는 신경망이 어떤 사진들을 닮았다고 보는지, 어디서 틀리는지 보여 줍니다. 여기까지입니다. 위의 주소를 보내면 이 화면을 나눌 수 있습니다."],
  ],
};

export const words = () => (lang() === "ko" ? ko : en);
