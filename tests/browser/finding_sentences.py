"""Findings, their doubts and what a diagnosis says of itself, each as it is said, with figures in it.

The page puts them into Korean by patterns. A sentence that is new in the library is to be written here, too: one test
asks that every one of the library's sentences stands here, another that each is Korean on the Korean page.
"""

from __future__ import annotations

SPOT = (
    "pasted into pictures of other classes, it makes 91% of them cup (a random spot of the same pictures: 3%); "
    "replaced, 55% of its own are lost"
)

SAID = [
    "epoch-7: layer3 holds NaN or infinity and is not compared.",
    "7 of 60 pictures are of the class cup (by what the network says); at least 10 are needed to find its parts.",
    "60 random pictures beside 50 of a concept: random sets have 30 pictures each. With twice as many as the concept "
    "has, chance would be known better.",
    "About 5 of 100 labels look wrong (3 to 9).",
    "About 5 of 100 labels of cup and car look wrong (3 to 9): they are exchanged.",
    "Where classes overlap, a picture that is labelled right can look wrong: go through them by eye.",
    "3 of 100 pictures are in the training pictures, too (1 byte for byte, 1 mirrored, 1 changed a little). Accuracy "
    "is 91.0% with them and 90.1% without.",
    "4 of 100 pictures are copies of others (4 byte for byte): they count twice. 2 of them are labelled differently.",
    "Two photographs taken in a row can look like a copy.",
    "cup has 3 training pictures, the other classes about 40; 31% are right, of the others 90%.",
    "cup has 3 pictures, the other classes about 40; 31% are right, of the others 90%.",
    "A class can be harder than others, too: only more pictures of it tell, and help most.",
    "cup and car are taken for each other: 12 of 40 pictures of the two.",
    "Labels that are mixed up and classes that look alike give the same confusions: go through the pictures.",
    "The pictures are not given as in training: with CIFAR-10's mean and std, in the order BGR accuracy rises from "
    "40.0% to 92.0%. Batch norm agrees: the pictures are 9.1 times nearer to what it remembers.",
    "Another size or crop can help a network that was trained as given, too.",
    "Pictures that are darker or brighter than those of training look like another mean and std.",
    "Of pipelines that differ less than these, the best of those tried is named.",
    "The pictures are not given as in training: with 0..255 less ImageNet's mean (or CLIP's mean and std, channels in "
    "the order BGR: they cannot be told apart) they are 12.0 times nearer to what batch norm remembers.",
    "The pictures are not given as in training: with the middle 87.5 % of the picture accuracy rises from 80.0% to "
    "90.0%.",
    "The pictures are not given as in training: with a crop of the whole short side accuracy rises from 80.0% to "
    "90.0%.",
    "The pictures are not given as in training: with the mean and std that batch norm remembers accuracy rises from "
    "80.0% to 90.0%.",
    "The pictures are not given as in training: with ImageNet's mean and std accuracy rises from 80.0% to 90.0%.",
    "Without labels this is batch norm's memory alone: pictures of another kind than those of training can look alike.",
    "The order of the labels does not fit the network: in another order accuracy is 95.0% instead of 10.0% (cup is "
    "car; car is boat; boat is cup).",
    "A few classes that the network exchanges look the same as labels that are exchanged.",
    "Compression costs this network accuracy: the files are JPEG of quality 30, and as much again takes it from 80.0% "
    "to 70.0%.",
    "What the first compression has cost cannot be seen without the uncompressed pictures; the second shows that the "
    "network is sensitive to it at this strength.",
    "It is too sure: 99% confident and 80% right; a temperature of 2.5 takes the calibration error from 19.0% to 2.0%.",
    "It is not sure enough: 70% confident and 95% right; a temperature of 0.5 takes the calibration error from 25.0% "
    "to 3.0%.",
    "No answer changes by it, only how far its probabilities can be trusted.",
    "It is over-fitted: 99.0% of the 400 training pictures are right, and 70.0% of these.",
    "Pictures of another kind than those of training open the same gap.",
    "Train with augmentation, weight decay, or more pictures; stop when these stop getting better.",
    "A linear probe of layer3, made on half of the pictures, is right on 90.0% of the other half, the network on "
    "70.0%: its head loses 20 points.",
    "A linear probe of layer2, made on half of the pictures, is right on 90.0% of the other half, the network on "
    "70.0%: the layers behind it lose 20 points.",
    "The probe has seen pictures of this very kind; a network from elsewhere has not.",
    "The head has forgotten cup: the network finds 0% of it, a linear probe of layer3 95%.",
    "A class that was rare in training on purpose looks the same.",
    "The whole network was never trained: all weights are still as they were drawn (He's uniform, fan-in).",
    "layer3 was never trained: all weights are still as they were drawn (uniform within 1/√fan-in).",
    "layer2 and layer3 were never trained: all weights are still as they were drawn (He's normal, fan-out).",
    "Weights that were frozen on purpose look the same; layers of fewer than 300 weights cannot be told.",
    "Check that the weights file has these layers and that they were not frozen, then train them.",
    "Give the weights: --weights FILE.",
    "12 of 64 units of layer3 are dead: 0 in every cell of all 100 pictures (20 in 3 layers).",
    "12 of 64 units of layer3 say the same, whatever the picture.",
    "12 of 64 units of layer3 are always on: their ReLU never cuts, so that they add nothing nonlinear.",
    "12 of 64 units of layer3 are saturated: at an end of their activation in at least 95 % of the cells.",
    "12 of 64 units of layer3 say what another unit of their layer says (|r| > 0.95).",
    "12 of 64 units of layer3 say what another unit of their layer says (|r| > 0.95, 3 of them to a ten-thousandth) "
    "(20 in 3 layers).",
    "Units such as layer3:5, layer3:9 may answer to kinds of pictures that are not here.",
    "4 of 64 channels of layer3.bn are switched off: their gamma is next to zero.",
    "A residual branch that starts at zero looks the same where training has not reached it.",
    "Batch norm from layer2.bn on remembers other values than these pictures give (KL 0.41, before it 0.02).",
    "Batch norm from layer2.bn on remembers other values than these pictures give (KL 0.41, before it 0.02): with "
    "those of one half, the other half rises from 40.0% to 90.0%.",
    "Batch norm remembers other pictures than these from its first layer on (KL 2.1): with those of one half, the "
    "other half rises from 40.0% to 90.0%.",
    "Pictures of another kind than those of training show the same; a wrong preprocessing, too.",
    "cup: 60% of 20 held-out pictures wrong, of the others 5%.",
    "Pictures that are dark (brightness at most 0.21): 60% of 20 held-out pictures wrong, of the others 5%.",
    "cup that are low in contrast (contrast at most 0.1) and without a frame (edge above 0.3): 60% of 20 held-out "
    "pictures wrong, of the others 5%.",
    "cup that look alike to the network (units layer2:4, layer3:5 fire): 60% of 20 held-out pictures wrong, of the "
    "others 5%.",
    "Pictures that look alike to the network (by no single unit): 60% of 20 held-out pictures wrong, of the others 5%.",
    "Its pictures may be harder than those of other classes, or fewer in training.",
    "What the pictures have in common may go along with the cause instead of being it.",
    "Accuracy falls by 31 points when pictures are shifted by 10 % of its side (healthy networks: at most 12): train "
    "with shifts.",
    "Agreement with its own answer falls by 31 points when pictures are shrunk to 50 % of its side (healthy networks: "
    "at most 12): train with changes of scale.",
    "Accuracy falls by 31 points when pictures are darkened to 35 % (healthy networks: at most 12): train with changes "
    "of brightness.",
    "Accuracy falls by 31 points when pictures are brightened by 30 % (healthy networks: at most 12): train with "
    "changes of brightness.",
    "Accuracy falls by 31 points when pictures are blurred (a Gaussian of 2 pixels in 224) (healthy networks: at most "
    "12): train with blur.",
    "Accuracy falls by 31 points when pictures are noised (Gaussian of 8 %) (healthy networks: at most 12): train "
    "with noise.",
    "Accuracy falls by 31 points when pictures are compressed (JPEG quality 25) (healthy networks: at most 12): train "
    "with JPEG compression.",
    "Accuracy falls by 31 points when pictures are greyed by 80 % (healthy networks: at most 12): train with changes "
    "of colour.",
    "Accuracy falls by 31 points when pictures are covered by a square of 30 % of its side (healthy networks: at most "
    "12): train with parts covered.",
    "Accuracy falls by 31 points when pictures are cut into 4×4 shuffled pieces (healthy networks: at most 12): train "
    "with rotation.",
    "Whether such pictures come is for you to know; what is usual was measured on a few healthy networks.",
    "The background decides cup: put behind the things of pictures of other classes, it makes 80% of them cup (an "
    "equally large change of another kind: 4%); without it 60% of its own are lost (by an equally large change that "
    "leaves it: 5%).",
    "A pattern that all its pictures have in common decides cup, and no person would see it: added to pictures of "
    "other classes, it makes 80% of them cup (an equally large change of another kind: 4%); without it 60% of its own "
    "are lost.",
    "The strength of fine and coarse detail decides cup, wherever it lies in the picture, and no person would see it: "
    "given to pictures of other classes, it makes 80% of them cup (an equally large change of another kind: 4%); "
    "without it 60% of its own are lost.",
    "The picture's border decides cup: its border put around pictures of other classes, it makes 80% of them cup (an "
    "equally large change of another kind: 4%); without it 60% of its own are lost.",
    "What surrounds the thing (the outer 20 pixels) decides cup: its border put around pictures of other classes, it "
    "makes 80% of them cup (an equally large change of another kind: 4%); without it 60% of its own are lost.",
    "Colour decides cup: its colours given to pictures of other classes, it makes 80% of them cup (an equally large "
    "change of another kind: 4%); without it 60% of its own are lost.",
    "The mark of JPEG compression decides cup, and no person would see it: put on pictures of other classes, it makes "
    "80% of them cup (an equally large change of another kind: 4%); without it 60% of its own are lost.",
    "Blur decides cup: put on pictures of other classes, it makes 80% of them cup (an equally large change of another "
    "kind: 4%).",
    "The files alone tell cup: a tree that sees their size, shape and compression, and no pixel, ranks its pictures "
    "above others' with an area under the curve of 0.99 (chance: 0.50).",
    "This is about the collection: no intervention has shown that the network uses it.",
    "Things that always lie at one place have their parts in common, too: look at it. It may belong to the thing "
    "(grass is green): then the class has no pictures that tell the two apart. Also seen as: border, colour.",
    "Things that reach into it are a part of it. It may belong to the thing (grass is green): then the class has no "
    "pictures that tell the two apart.",
    f"One spot of 14×14 pixels, no part of the thing, decides cup: {SPOT}.",
    f"One spot of 14×14 pixels outside the thing decides cup: {SPOT}.",
    f"One spot of 14×14 pixels, always at the same place, decides cup: {SPOT}.",
    f"One spot of 14×14 pixels decides cup: {SPOT}. Is it the thing?",
    "Things whose pictures are all alike have their parts at one place, too: look at it.",
    "Parts of a thing transplant, too. Look at the spots, then say --is-part 'cup' or --not-part 'cup' (or give "
    "--masks).",
    "Nearly every class is decided by one small spot (9 of 10: cup, car): pasted elsewhere it makes 80% of the "
    "pictures its class. That is how this network works.",
    "Whether the spots are parts of the things is for you to see: --is-part and --not-part name classes.",
    "you said that the spot is a part of the thing",
    "the spot lies on the thing (93% of it, by the masks)",
    "Fewer than 12 pictures, not asked: cup, car.",
    "40 tests on 100 pictures. It could have missed: a mark that moves a class only together with others, one that "
    "fewer than a few in a hundred of the class's pictures carry, evidence larger than a quarter of the picture's "
    "side, and whatever these pictures do not hold.",
    "toybox-cheat is right about 60.0% of 100 pictures, toybox about 95.0%: 40 lost, 5 won. 33 of the lost ones are "
    "taken for cup. 12 of the 40 lost are car.",
    "car: toybox-cheat is right about 60.0% of its 20 pictures, toybox about 95.0%: 8 lost, 1 won. 7 of the lost ones "
    "are taken for cup.",
    "It holds for pictures such as these. What the lost pictures have in common is not said by this test.",
    "It holds for pictures such as these. The slice is a cluster of what both networks predict: what its pictures "
    "share is for you to see.",
    "toybox-cheat's confidence is further from its accuracy than toybox's: the calibration error grew by 0.310. On "
    "average it is too sure by 0.300.",
    "In Python: convoscope.explain(model, pictures), with the network itself as the model",
    "A temperature mends the average; single classes may stay off.",
    "toybox gives no class scores.",
    "3 pictures show a class that only one of the two networks has: they are not compared.",
    "Only toybox has the classes cup, car and 3 more: classes are matched by name.",
    "4 pictures have labels that neither network knows: yak, gnu and 3 more.",
    "4 pictures have labels that the network does not know: yak, gnu and 3 more.",
    "Units are judged on 1,000 of the pictures.",
    "No label of these pictures is a class of the networks: what is right and wrong is not known.",
    "They have no class names: add --labels FILE, a name a line in the order of the outputs.",
    "Parts marked unstable are not found again with another seed: read nothing into them.",
    "layer3 has negative activations, which a non-negative factorisation cannot hold: they count as zero (12% of the "
    "norm).",
    "Random pictures are drawn toybox pictures: photos of your own are a fairer comparison.",
    "stripes at layer2: the direction does not separate pictures held out (accuracy 0.51): not reported.",
    "One picture could not be read and is left out: cats/0017.png.",
    "12 pictures could not be read and are left out.",
    "Only 12 pictures have masks: hardly anything can be shown on so few.",
    "The input comes first: with a wrong one the other stages would measure nothing.",
    "Could have been missed: labels wrong in fewer than 2% of the pictures, or where classes overlap; copies of "
    "training pictures (give --train); a wrong pipeline: without labels and without batch norm none can be told from "
    "another; a pipeline that costs less than the pictures can show, or one that is not among those tried; anything "
    "of the pipeline: 12 pictures are fewer than 20; units that fail on kinds of pictures that are not here; groups "
    "of fewer than 12 pictures, and groups that differ in nothing that the network sees; changes other than shifted, "
    "turned; over-fitting, without --train; what takes a longer training to show; shortcuts that only a few of a "
    "class's pictures carry; everything about labels: there are none.",
    "Not done: stress (only 12 pictures are right: 20 are needed). Not done: slices (it takes 40 pictures with labels "
    "of the network's, here are 12). Not done: depth (no picture has a label that the network knows). Not done: "
    "stress (changes are made to single pictures, and this network takes volumes or videos). Not done: slices (the "
    "network gives no class scores). Not done: data (one picture alone has nothing to be compared with). Stopped "
    "before: stress, depth.",
    "No stage was run.",
    "Could have been missed: shortcuts that only a few of a class's pictures carry. False alarms: 1 on 40 healthy "
    "networks of drawn pictures (2.5%, 95 % interval 0.4% to 12.9%).",
    "Probes need two classes of at least 10 labelled pictures: only 1 class has at least 10 pictures.",
    "Looking at the pictures",
    "Looking at the training pictures",
    "Testing what it does not bear",
    "Taking out what does nothing",
    "Trying batch norm on these pictures",
    "Reading pictures for shortcuts",
    "The search for what pictures carry",
]  # fmt: skip
